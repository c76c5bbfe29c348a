# Few-shot tuning of InternViT-6B: backbone and linear head learn.
_base_ = [
    '../models/linear_intern_vit_6b.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(pretrain_size=224))  # nothing reads it, but the original has it
