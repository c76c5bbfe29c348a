# Head tuning: a frozen backbone; the feature pyramid and UPerNet learn.
_base_ = [
    '../../_base_/models/upernet_intern_vit_6b.py',
    '../../_base_/datasets/ade20k_504x504.py',
    '../../_base_/schedules/adamw_80k.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(freeze_vit=True, drop_path_rate=0.0),
    auxiliary_head=dict(in_index=1))
data = dict(samples_per_gpu=2)  # on 8 GPUs: a batch of 16
optimizer = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
