# The built-in demonstration data, in ADE20K's layout and with its 150 classes, at 112x112 crops.
# The pipelines are those of ade20k_504x504.py at this scale.
_base_ = './ade20k_504x504.py'

data_root = 'data/ade_demo/ADEChallengeData2016'
crop_size = (112, 112)  # pixels, height and width
img_scale = (448, 112)  # pixels, the most for the long side and for the short side

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', img_scale=img_scale, ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    {{_base_.normalize}},
    dict(type='Pad', size=crop_size, pad_val=0, seg_pad_val=255),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_semantic_seg']),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale=img_scale,
        flip=False,
        transforms=[
            dict(type='SETR_Resize', keep_ratio=True, crop_size=crop_size, setr_multi_scale=True),
            dict(type='ResizeToMultiple', size_divisor=14),
            dict(type='RandomFlip'),
            {{_base_.normalize}},
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img']),
        ]),
]

validation = dict(data_root=data_root, pipeline=test_pipeline)
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=1,
    train=dict(data_root=data_root, pipeline=train_pipeline),
    val=validation,
    test=validation)
