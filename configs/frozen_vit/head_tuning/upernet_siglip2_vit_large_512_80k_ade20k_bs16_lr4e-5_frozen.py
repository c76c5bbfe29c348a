# Head tuning of the vision tower of SigLIP 2 (ViT-L), from a folder of transformers, on ADE20K at
# 512 pixels: the feature pyramid and UPerNet learn.
_base_ = [
    '../../_base_/recipes/upernet_frozen.py',
    '../../_base_/datasets/ade20k_512x512_patch16.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='FrozenViT',
        name='./pretrained/siglip2-large-patch16-512',
        out_indices=[5, 11, 17, 23],
        with_fpn=True,
        freeze_vit=True),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=512),
    auxiliary_head=dict(in_channels=1024, channels=256),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)))
optimizer = dict(paramwise_cfg=dict(num_layers=24))
data = dict(samples_per_gpu=16)  # on one GPU: a batch of 16
