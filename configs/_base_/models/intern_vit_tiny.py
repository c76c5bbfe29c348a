# What turns the models of InternViT-6B into networks of 6 blocks, which two CPU cores train in a
# minute from random weights.
backbone_tiny = dict(
    pretrained=None,
    img_size=112,
    embed_dim=192,
    depth=6,
    num_heads=6,
    init_values=1.0,  # a small layer scale is for weights that are trained already
    drop_path_rate=0.1,
    with_cp=False)  # memory is no concern at this size
test_cfg_tiny = dict(crop_size=(112, 112), stride=(72, 72))
linear_tiny = dict(
    backbone=dict(backbone_tiny, out_indices=[5]),
    decode_head=dict(in_channels=192, channels=192),
    test_cfg=test_cfg_tiny)
upernet_tiny = dict(
    backbone=dict(backbone_tiny, out_indices=[1, 2, 3, 5]),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=64),
    auxiliary_head=dict(in_channels=192, channels=64),
    test_cfg=test_cfg_tiny)
masks_in_short = dict(  # what learns fastest in 150 iterations: see docs/heads.md
    num_queries=150,
    matching='fixed',
    masked_attention=False,
    num_points=1024,
    oversample_ratio=1.0,
    importance_sample_ratio=0.0)
plain_mask_tiny = dict(
    backbone=dict(backbone_tiny, out_indices=[1, 2, 3, 5]),
    decode_head=dict(
        masks_in_short, in_channels=[192, 192, 192, 192], channels=192, num_blocks=2, num_heads=6),
    test_cfg=test_cfg_tiny)
eomt_tiny = dict(
    backbone=dict(backbone_tiny, out_indices=[5]),
    decode_head=dict(masks_in_short, in_channels=192, channels=192, num_blocks=2),
    test_cfg=test_cfg_tiny)
