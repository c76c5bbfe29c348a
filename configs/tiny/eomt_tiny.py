# EoMT in small: queries in the last two of six blocks, all of which learn, from random weights.
_base_ = [
    '../_base_/models/eomt_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

# Drop path is against overfitting, which 150 iterations do not reach.
model = dict(backbone=dict(drop_path_rate=0.0))
optimizer_config = dict(grad_clip=dict(max_norm=0.01, norm_type=2))
