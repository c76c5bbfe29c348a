# InternViT-6B, frozen, with a ViT-Adapter and UPerNet: feature maps at strides of 4, 8, 16 and 32
# pixels. The auxiliary head reads the third of them.
_base_ = './upernet_intern_vit_6b.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='InternViTAdapter',
        pretrained='./pretrained/intern_vit_6b_224px.pth',  # patches of 14 pixels, resampled
        img_size=512,
        patch_size=16,
        embed_dim=3200,
        depth=48,
        num_heads=25,
        mlp_ratio=4.,
        qkv_bias=False,
        qk_normalization=True,
        layerscale_force_fp32=False,
        drop_path_rate=0.0,
        freeze_vit=True,
        with_fpn=False,
        use_flash_attn=True,
        with_cp=True,
        init_values=0.0,  # of the injectors, not of the layer scale
        interaction_indexes=[[0, 11], [12, 23], [24, 35], [36, 47]],
        cffn_ratio=0.25,
        deform_ratio=0.25,
        use_final_norm=True),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)))

# Tests compute in float16, as published. The adapter is trained in bfloat16, since gradients are
# not scaled here.
custom_hooks = [dict(type='ToFloat16Hook', priority=49)]
