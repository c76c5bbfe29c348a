# The plain mask decoder in small: a frozen backbone of random weights; the decoder learns.
_base_ = [
    '../_base_/models/plain_mask_intern_vit_tiny.py',
    '../_base_/datasets/ade_demo_112x112.py',
    '../_base_/schedules/adamw_tiny.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(freeze_vit=True, drop_path_rate=0.0))
optimizer = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
optimizer_config = dict(grad_clip=dict(max_norm=0.01, norm_type=2))
lr_config = dict(power=0.9)
