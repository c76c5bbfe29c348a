# InternViT-6B with queries in its last four blocks (EoMT), and no other decoder. The
# hyper-parameters are those published for EoMT with DINOv2-L on ADE20K at 512 pixels
# (configs/dinov2/ade20k/semantic/eomt_large_512.yaml of tue-mps/eomt, and the defaults of its
# models/eomt.py and training/mask_classification_semantic.py, 2025): queries, blocks, weights and
# points of the losses. Predictions have 1024 channels, as there; a projection brings the backbone's
# 3200 to them.
_base_ = './intern_vit_6b.py'

model = dict(
    backbone=dict(out_indices=[47]),
    decode_head=dict(
        type='PlainMaskHead',
        blocks='backbone',
        in_channels=3200,
        channels=1024,
        num_queries=100,
        num_blocks=4,
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
