# Full tuning of InternViT-300M with queries in its last blocks (EoMT): backbone and queries learn.
_base_ = [
    '../models/eomt_intern_vit_300m.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
optimizer = dict(paramwise_cfg=dict(num_layers=24))
