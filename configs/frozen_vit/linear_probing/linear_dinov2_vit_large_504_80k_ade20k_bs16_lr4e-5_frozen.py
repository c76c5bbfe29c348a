# Linear probing of DINOv2's ViT-L with registers, as timm has it, on ADE20K at 504 pixels.
_base_ = [
    '../../_base_/recipes/linear_frozen.py',
    '../../_base_/datasets/ade20k_504x504.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='FrozenViT',
        name='vit_large_patch14_reg4_dinov2.lvd142m',
        pretrained='./pretrained/vit_large_patch14_reg4_dinov2.lvd142m',
        final_norm=True,
        out_indices=[23],
        freeze_vit=True),
    decode_head=dict(in_channels=1024, channels=1024))
optimizer = dict(paramwise_cfg=dict(num_layers=24))
data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
