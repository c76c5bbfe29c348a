# Full tuning in small: backbone, feature pyramid and UPerNet all learn.
_base_ = [
    '../_base_/models/upernet_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(out_indices=[1, 2, 3, 5]))
