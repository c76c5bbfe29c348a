# Head tuning at the sizes of InternViT-6B: the backbone is frozen, the feature pyramid and UPerNet
# are trained.
_base_ = [
    '../models/upernet_intern_vit_6b.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(
    backbone=dict(freeze_vit=True, drop_path_rate=0.0),
    auxiliary_head=dict(in_index=1))
optimizer = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
