# Full tuning of InternViT-6B with queries in its last blocks (EoMT): backbone and queries learn.
_base_ = [
    '../models/eomt_intern_vit_6b.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(pretrain_size=224))  # as the neighbours; nothing reads it
