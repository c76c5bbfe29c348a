# Linear probing at the sizes of InternViT-6B: a frozen backbone; the linear head alone learns.
_base_ = [
    '../models/linear_intern_vit_6b.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(freeze_vit=True, drop_path_rate=0.0))
optimizer = dict(weight_decay=0.0, paramwise_cfg=dict(layer_decay_rate=1.0))
