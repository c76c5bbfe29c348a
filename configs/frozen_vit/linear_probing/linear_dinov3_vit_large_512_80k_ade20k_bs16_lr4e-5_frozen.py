# Linear probing of DINOv3's ViT-L, from a folder of transformers, on ADE20K at 512 pixels.
_base_ = [
    '../../_base_/recipes/linear_frozen.py',
    '../../_base_/datasets/ade20k_512x512_patch16.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='FrozenViT',
        name='./pretrained/dinov3-vitl16-pretrain-lvd1689m',
        final_norm=True,
        out_indices=[23],
        freeze_vit=True),
    decode_head=dict(in_channels=1024, channels=1024),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)))
optimizer = dict(paramwise_cfg=dict(num_layers=24))
data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
