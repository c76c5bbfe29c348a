# Full tuning of InternViT-6B with queries in its last blocks (EoMT): backbone and queries learn.
# Gradients are clipped as published for EoMT (main.py of tue-mps/eomt); the schedule is that of the
# other recipes.
_base_ = [
    '../models/eomt_intern_vit_6b.py',
    '../schedules/adamw_80k.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(pretrain_size=224))  # as the neighbours; nothing reads it
optimizer_config = dict(grad_clip=dict(max_norm=0.01, norm_type=2))
