# Head tuning in small: a frozen backbone of random weights; the feature pyramid and UPerNet learn.
_base_ = [
    '../_base_/models/upernet_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(freeze_vit=True, drop_path_rate=0.0),
    auxiliary_head=dict(in_index=1))
optimizer = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
