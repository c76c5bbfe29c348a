# Linear probing of a ViT of timm in small: random weights, sizes that two CPU cores train.
_base_ = './linear_probing_tiny.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='FrozenViT',
        name='vit_small_patch14_reg4_dinov2',
        overrides=dict(embed_dim=192, depth=6, num_heads=6),
        final_norm=True,
        out_indices=[4],
        freeze_vit=True))
