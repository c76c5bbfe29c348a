# Full tuning of InternViT-300M: backbone, feature pyramid and UPerNet all learn.
_base_ = [
    '../models/upernet_intern_vit_300m.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
optimizer = dict(paramwise_cfg=dict(num_layers=24))
