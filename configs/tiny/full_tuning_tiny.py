# Full tuning in small: backbone and head all learn. The head is the linear one, so that the result
# stands beside linear probing; UPerNet is in head_tuning_tiny.py.
_base_ = [
    '../_base_/models/linear_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(out_indices=[5]))
optimizer = dict(lr=3e-3)
runner = dict(max_iters=200)
checkpoint_config = dict(interval=200)
evaluation = dict(interval=200)
