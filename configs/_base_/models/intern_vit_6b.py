# InternViT-6B as a segmentation backbone, for 504x504 crops, all of it trained. The two files
# beside this one add a head: linear_intern_vit_6b.py and upernet_intern_vit_6b.py.
model = dict(
    type='InternViTSegmentor',
    pretrained=None,  # the backbone loads its own file, below
    backbone=dict(
        type='InternViT6B',
        pretrained='./pretrained/intern_vit_6b_224px.pth',
        img_size=504,
        patch_size=14,
        embed_dim=3200,
        depth=48,
        num_heads=25,
        mlp_ratio=4.,
        qkv_bias=False,
        qk_normalization=True,
        init_values=0.1,
        layerscale_force_fp32=False,
        drop_path_rate=0.4,
        freeze_vit=False,
        use_flash_attn=True,
        with_cp=True),
    test_cfg=dict(mode='slide', crop_size=(504, 504), stride=(322, 322)))

# The backbone computes in bfloat16, the heads stay in float32. Priority 49 puts the hook just
# before the hooks of normal priority (50).
custom_hooks = [dict(type='ToBFloat16Hook', priority=49)]
