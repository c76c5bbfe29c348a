# LoRA in small: adapters in a frozen backbone of random weights, and the linear head, learn.
_base_ = [
    '../_base_/models/linear_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(adapt=dict(type='lora', r=8, alpha=16)))
optimizer = dict(lr=5e-3)
total_batch = 4  # images of an iteration, on any number of processes up to 4
