# InternViT-6B with a plain mask decoder on the features of four blocks, without a feature pyramid.
# The hyper-parameters are those published for PMT with DINOv3-L on ADE20K at 512 pixels
# (image/configs/ade20k/semantic/pmt_l_512.yaml and image/training/ of tue-mps/pmt, 2026): queries,
# blocks, width, heads, MLP, weights and points of the losses.
_base_ = './intern_vit_6b.py'

model = dict(
    backbone=dict(out_indices=[11, 23, 35, 47]),
    decode_head=dict(
        type='PlainMaskHead',
        in_channels=[3200, 3200, 3200, 3200],
        in_index=[0, 1, 2, 3],
        channels=1024,
        num_queries=100,
        num_blocks=6,
        num_heads=16,
        mlp_ratio=1.0,
        num_upscalings=2,  # masks at a stride of 3.5 pixels
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=5.0,
        no_object_weight=0.1,
        num_points=12544,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        num_classes=150,
        align_corners=False),
    train_cfg=dict())

# train.py registers the second one by itself; it is here for mmseg's tools.
custom_hooks = [dict(type='ToBFloat16Hook', priority=49), dict(type='MaskAnnealingHook')]
