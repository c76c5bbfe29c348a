model = dict(
    type='EncoderDecoder',
    pretrained=None,
    backbone=dict(
        type='InternViT6B',
        pretrained=None,
        pretrain_size=112,
        img_size=112,
        patch_size=14,
        embed_dim=192,
        depth=6,
        num_heads=6,
        mlp_ratio=4.0,
        qkv_bias=False,
        qk_normalization=True,
        init_values=1.0,
        layerscale_force_fp32=False,
        drop_path_rate=0.0,
        freeze_vit=True,
        use_flash_attn=True,
        with_cp=False,
        out_indices=[4]),
    test_cfg=dict(mode='slide', crop_size=(112, 112), stride=(72, 72)),
    decode_head=dict(
        type='FCNHead',
        with_norm=True,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        in_channels=192,
        channels=192,
        num_classes=150,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
custom_hooks = [dict(type='ToBFloat16Hook', priority=49)]
tiny_backbone = dict(
    pretrained=None,
    pretrain_size=112,
    img_size=112,
    embed_dim=192,
    depth=6,
    num_heads=6,
    init_values=1.0,
    drop_path_rate=0.1,
    with_cp=False)
tiny_test_cfg = dict(crop_size=(112, 112), stride=(72, 72))
dataset_type = 'ADE20KDataset'
data_root = '/tmp/pytest-of-root/pytest-58/mmseg_tools0/ADEChallengeData2016'
crop_size = (112, 112)
img_scale = (448, 112)
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
normalize = dict(
    type='Normalize',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', img_scale=(448, 112), ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=(112, 112), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(
        type='Normalize',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
    dict(type='Pad', size=(112, 112), pad_val=0, seg_pad_val=255),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_semantic_seg'])
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale=(448, 112),
        flip=False,
        transforms=[
            dict(
                type='SETR_Resize',
                keep_ratio=True,
                crop_size=(112, 112),
                setr_multi_scale=True),
            dict(type='ResizeToMultiple', size_divisor=14),
            dict(type='RandomFlip'),
            dict(
                type='Normalize',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                to_rgb=True),
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img'])
        ])
]
validation = dict(
    type='ADE20KDataset',
    data_root='data/ade_demo/ADEChallengeData2016',
    img_dir='images/validation',
    ann_dir='annotations/validation',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(
            type='MultiScaleFlipAug',
            img_scale=(448, 112),
            flip=False,
            transforms=[
                dict(
                    type='SETR_Resize',
                    keep_ratio=True,
                    crop_size=(112, 112),
                    setr_multi_scale=True),
                dict(type='ResizeToMultiple', size_divisor=14),
                dict(type='RandomFlip'),
                dict(
                    type='Normalize',
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375],
                    to_rgb=True),
                dict(type='ImageToTensor', keys=['img']),
                dict(type='Collect', keys=['img'])
            ])
    ])
data = dict(
    samples_per_gpu=2,
    workers_per_gpu=0,
    train=dict(
        type='ADE20KDataset',
        data_root=
        '/tmp/pytest-of-root/pytest-58/mmseg_tools0/ADEChallengeData2016',
        img_dir='images/training',
        ann_dir='annotations/training',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='Resize', img_scale=(448, 112), ratio_range=(0.5, 2.0)),
            dict(type='RandomCrop', crop_size=(112, 112), cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(
                type='Normalize',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                to_rgb=True),
            dict(type='Pad', size=(112, 112), pad_val=0, seg_pad_val=255),
            dict(type='DefaultFormatBundle'),
            dict(type='Collect', keys=['img', 'gt_semantic_seg'])
        ]),
    val=dict(
        type='ADE20KDataset',
        data_root=
        '/tmp/pytest-of-root/pytest-58/mmseg_tools0/ADEChallengeData2016',
        img_dir='images/validation',
        ann_dir='annotations/validation',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='MultiScaleFlipAug',
                img_scale=(448, 112),
                flip=False,
                transforms=[
                    dict(
                        type='SETR_Resize',
                        keep_ratio=True,
                        crop_size=(112, 112),
                        setr_multi_scale=True),
                    dict(type='ResizeToMultiple', size_divisor=14),
                    dict(type='RandomFlip'),
                    dict(
                        type='Normalize',
                        mean=[123.675, 116.28, 103.53],
                        std=[58.395, 57.12, 57.375],
                        to_rgb=True),
                    dict(type='ImageToTensor', keys=['img']),
                    dict(type='Collect', keys=['img'])
                ])
        ]),
    test=dict(
        type='ADE20KDataset',
        data_root=
        '/tmp/pytest-of-root/pytest-58/mmseg_tools0/ADEChallengeData2016',
        img_dir='images/validation',
        ann_dir='annotations/validation',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='MultiScaleFlipAug',
                img_scale=(448, 112),
                flip=False,
                transforms=[
                    dict(
                        type='SETR_Resize',
                        keep_ratio=True,
                        crop_size=(112, 112),
                        setr_multi_scale=True),
                    dict(type='ResizeToMultiple', size_divisor=14),
                    dict(type='RandomFlip'),
                    dict(
                        type='Normalize',
                        mean=[123.675, 116.28, 103.53],
                        std=[58.395, 57.12, 57.375],
                        to_rgb=True),
                    dict(type='ImageToTensor', keys=['img']),
                    dict(type='Collect', keys=['img'])
                ])
        ]),
    persistent_workers=False)
optimizer = dict(
    type='AdamW',
    lr=0.01,
    betas=(0.9, 0.999),
    weight_decay=0.0,
    constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers=6, layer_decay_rate=1.0))
optimizer_config = dict()
lr_config = dict(
    policy='poly',
    power=1.0,
    min_lr=0.0,
    warmup='linear',
    warmup_iters=1,
    warmup_ratio=1e-06,
    by_epoch=False)
runner = dict(type='IterBasedRunner', max_iters=4)
checkpoint_config = dict(by_epoch=False, interval=2, max_keep_ckpts=2)
evaluation = dict(interval=4, metric='mIoU', save_best='mIoU', pre_eval=True)
custom_imports = dict(imports=['mmseg_custom'], allow_failed_imports=False)
log_config = dict(
    interval=1,
    hooks=[
        dict(type='TextLoggerHook', by_epoch=False),
        dict(type='TensorboardLoggerHook')
    ])
log_level = 'INFO'
dist_params = dict(backend='nccl')
cudnn_benchmark = True
load_from = None
resume_from = None
workflow = [('train', 1)]
