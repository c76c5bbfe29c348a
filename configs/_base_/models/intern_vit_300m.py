# What turns the models of InternViT-6B into those of InternViT-300M-448px: 24 blocks of width 1024,
# LayerNorm, a bias in q, k and v, no norm of q and k. The weights are a Hugging Face folder.
backbone_300m = dict(
    pretrained='./pretrained/InternViT-300M-448px',
    embed_dim=1024,
    depth=24,
    num_heads=16,
    qkv_bias=True,
    qk_normalization=False,
    norm_type='layer_norm')
linear_300m = dict(
    backbone=dict(backbone_300m, out_indices=[23]),
    decode_head=dict(in_channels=1024, channels=1024))
upernet_300m = dict(
    backbone=dict(backbone_300m, out_indices=[5, 11, 17, 23]),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=512),
    auxiliary_head=dict(in_channels=1024, channels=256))
plain_mask_300m = dict(
    backbone=dict(backbone_300m, out_indices=[5, 11, 17, 23]),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024]))
eomt_300m = dict(
    backbone=dict(backbone_300m, out_indices=[23]),
    decode_head=dict(in_channels=1024))

# For the recipes at 448x448 crops, the size that the released weights were trained at.
model_448 = dict(
    backbone=dict(img_size=448),
    test_cfg=dict(crop_size=(448, 448), stride=(286, 286)))
