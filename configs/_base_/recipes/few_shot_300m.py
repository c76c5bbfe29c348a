# Few-shot tuning of InternViT-300M: backbone and linear head learn.
_base_ = [
    '../models/linear_intern_vit_300m.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
optimizer = dict(paramwise_cfg=dict(num_layers=24))
