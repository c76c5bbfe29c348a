# The training and test pipelines of all data sets. They are a function of the crop size, because
# a config cannot see the values of the configs that build on it. Each file calls the function
# with its own sizes.

# ImageNet's statistics, in RGB.
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def pipelines(crop_size, img_scale, setr_resize=True, multiple=14, **labels):
    """Builds the training and the test pipeline.

    Args:
        crop_size: Height and width in pixels of a training crop.
        img_scale: Largest long side and short side in pixels that an image is resized to.
        setr_resize: Whether test images are resized so that their short side is at least one
            crop, which leaves no window to pad.
        multiple: Pixels that the sides of test images are made multiples of; None leaves them.
        labels: Options of LoadAnnotations.
    """
    normalize = dict(type='Normalize', **img_norm_cfg)
    train = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', **labels),
        dict(type='Resize', img_scale=img_scale, ratio_range=(0.5, 2.0)),
        dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        normalize,
        dict(type='Pad', size=crop_size, pad_val=0, seg_pad_val=255),
        dict(type='DefaultFormatBundle'),
        dict(type='Collect', keys=['img', 'gt_semantic_seg']),
    ]
    resize = dict(type='Resize', keep_ratio=True)
    if setr_resize:
        resize.update(type='SETR_Resize', crop_size=crop_size, setr_multi_scale=True)
    test = [
        dict(type='LoadImageFromFile'),
        dict(
            type='MultiScaleFlipAug',
            img_scale=img_scale,
            flip=False,
            transforms=[
                resize,
                *([dict(type='ResizeToMultiple', size_divisor=multiple)] if multiple else []),
                dict(type='RandomFlip'),
                normalize,
                dict(type='ImageToTensor', keys=['img']),
                dict(type='Collect', keys=['img']),
            ]),
    ]
    return train, test
