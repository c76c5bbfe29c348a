# Linear probing in small: a frozen backbone of random weights; the linear head alone learns.
_base_ = [
    '../_base_/models/linear_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(freeze_vit=True, drop_path_rate=0.0, out_indices=[4]))
optimizer = dict(lr=1e-2, weight_decay=0.0, paramwise_cfg=dict(layer_decay_rate=1.0))
