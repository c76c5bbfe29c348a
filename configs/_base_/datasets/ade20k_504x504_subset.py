# ADE20K for few-shot tuning on a part of the training images; the files that build on this one
# say how many.
_base_ = './ade20k_504x504.py'

# The published 1/2 to 1/16 results were tested with a plain Resize, those of the full data with
# SETR_Resize. They differ where an image is more than four times as long as it is short: here
# its long side is held to 2016 pixels, there its short side to 504. Kept as published.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale={{_base_.img_scale}},
        flip=False,
        transforms=[
            dict(type='Resize', keep_ratio=True),
            dict(type='ResizeToMultiple', size_divisor=14),
            dict(type='RandomFlip'),
            {{_base_.normalize}},
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img']),
        ]),
]
validation = dict(pipeline=test_pipeline)
data = dict(val=validation, test=validation)
