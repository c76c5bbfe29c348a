# Pipelines at 504x504 crops, as in ade20k_504x504.py, for other data sets; they say which of the
# two training pipelines fits their labels.
crop_size = (504, 504)  # pixels, height and width
img_scale = (2016, 504)  # pixels, the most for the long side and for the short side

# ImageNet's statistics, in RGB.
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
normalize = dict(type='Normalize', **img_norm_cfg)

augment = [
    dict(type='Resize', img_scale=img_scale, ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    normalize,
    dict(type='Pad', size=crop_size, pad_val=0, seg_pad_val=255),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_semantic_seg']),
]
# Labels 0..K-1, and 255 for what is ignored.
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *augment]
# Labels 1..K, and 0 for what is ignored.
train_pipeline_from_one = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    *augment,
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale=img_scale,
        flip=False,
        transforms=[
            # The short side becomes at least one crop, so that no window needs padding.
            dict(type='SETR_Resize', keep_ratio=True, crop_size=crop_size, setr_multi_scale=True),
            dict(type='ResizeToMultiple', size_divisor=14),
            dict(type='RandomFlip'),
            normalize,
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img']),
        ]),
]

data = dict(samples_per_gpu=2, workers_per_gpu=4)
