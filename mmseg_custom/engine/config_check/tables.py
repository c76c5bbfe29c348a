"""Kinds of the values that neither annotations nor defaults tell, for what the recipes use.

``PARAMETERS`` are those of classes, and hold for classes that inherit from them.
"""
from collections.abc import Mapping, Sequence
from numbers import Real

from mmcv.runner import Priority

from .kinds import (
    ANY,
    COUNT,
    FLAG,
    NONE,
    NUMBER,
    PAIR,
    POSITIVE,
    SETTINGS,
    SIZE,
    STEPS,
    TEXT,
    TEXTS,
    TYPED,
    WHOLE,
    Kind,
    is_real,
    many,
    number,
    one_of,
    steps,
)

SHARE = number(0, 1)
FACTOR = number(0)
DECAY = number(0)
PATH = TEXT | NONE
SIDES = PAIR | many(many(SIZE, 2), least=1) | NONE  # (width, height) in pixels, or several
RANGE = many(NUMBER, 2)
CLIPPING = Kind('dict(max_norm=..., ...)',
                lambda value: isinstance(value, Mapping) and 'max_norm' in value)
# One colour or several: mmcv pads each channel by its own.
COLOUR = NUMBER | many(NUMBER)
DATASET = TYPED | many(TYPED, least=1)
HEADS = TYPED | many(TYPED, least=1)
PIPELINE = many(TYPED)
NORMALIZE = dict(mean=NUMBER | many(NUMBER), std=POSITIVE | many(POSITIVE))  # divided by
OPTIMIZER = dict(lr=number(0), weight_decay=DECAY, momentum=DECAY, eps=DECAY | many(DECAY | NONE),
                 betas=many(SHARE, 2))
INIT = TYPED | many(TYPED) | NONE
DECODE_HEAD = dict(
    in_channels=SIZE | many(SIZE), channels=SIZE, num_classes=SIZE, out_channels=SIZE | NONE,
    threshold=NUMBER | NONE, dropout_ratio=number(most=1), conv_cfg=TYPED | NONE,
    norm_cfg=TYPED | NONE, act_cfg=TYPED | NONE, in_index=WHOLE | many(WHOLE),
    input_transform=one_of(None, 'resize_concat', 'multiple_select'), loss_decode=HEADS,
    ignore_index=WHOLE | NONE, sampler=TYPED | NONE, align_corners=FLAG)

PARAMETERS: dict[str, dict[str, Kind]] = {
    'BaseModule': dict(init_cfg=INIT),
    'BaseSegmentor': dict(
        backbone=TYPED, neck=TYPED | NONE, decode_head=HEADS,
        auxiliary_head=TYPED | many(TYPED) | NONE,
        train_cfg=SETTINGS | NONE, test_cfg=SETTINGS | NONE, pretrained=PATH),
    'InternViT6B': dict(
        in_chans=SIZE, patch_size=SIZE, img_size=SIZE, pretrain_size=SIZE,
        drop_path_rate=number(0, 0.999), embed_dim=SIZE, num_heads=SIZE, mlp_ratio=POSITIVE,
        depth=SIZE, out_indices=many(COUNT, least=1),
        frozen_dtype=one_of(None, 'int8', 'fp8'), adapt=SETTINGS | NONE,
        train_last=COUNT | NONE, train_norms=FLAG,
        pretrained=Kind(PATH.words, lambda value: not isinstance(value, Real | Mapping | Sequence)
                        or isinstance(value, str))),
    'FrozenViT': dict(
        name=TEXT, out_indices=many(COUNT, least=1) | NONE, final_norm=FLAG, with_fpn=FLAG,
        with_final_norm=FLAG, mean=many(NUMBER, 3), std=many(POSITIVE, 3),
        own_mean=many(NUMBER, 3) | NONE, own_std=many(POSITIVE, 3) | NONE,
        overrides=SETTINGS | NONE, freeze_vit=FLAG,
        pretrained=Kind(PATH.words, lambda value: not isinstance(value, Real | Mapping | Sequence)
                        or isinstance(value, str))),
    'InternViTAdapter': dict(
        init_values=NUMBER, conv_inplane=SIZE, n_points=SIZE, deform_num_heads=SIZE,
        interaction_indexes=many(many(COUNT, least=1), least=1), cffn_ratio=POSITIVE,
        deform_ratio=POSITIVE, pretrained=PATH),
    'BaseDecodeHead': DECODE_HEAD,
    'DecodeHead': dict(DECODE_HEAD, init_cfg=INIT),
    'FCNHead': dict(num_convs=COUNT, kernel_size=SIZE, dilation=SIZE),
    'UPerHead': dict(pool_scales=many(SIZE, least=1)),
    'PlainMaskHead': dict(
        num_queries=SIZE, num_blocks=SIZE, num_heads=SIZE, mlp_ratio=POSITIVE,
        num_upscalings=COUNT, class_weight=FACTOR, mask_weight=FACTOR, dice_weight=FACTOR,
        no_object_weight=FACTOR, num_points=SIZE, oversample_ratio=number(1),
        importance_sample_ratio=SHARE, masked_attention=FLAG),
    'CrossEntropyLoss': dict(
        reduction=one_of('mean', 'sum', 'none'), class_weight=many(NUMBER, least=1) | TEXT | NONE,
        loss_weight=NUMBER, loss_name=TEXT),
    'CustomDataset': dict(
        pipeline=PIPELINE, img_dir=TEXTS, img_suffix=TEXTS, ann_dir=TEXTS | NONE,
        seg_map_suffix=TEXT, split=TEXTS | NONE, data_root=PATH, test_mode=FLAG, ignore_index=WHOLE,
        reduce_zero_label=FLAG, classes=TEXTS | NONE, palette=many(ANY) | NONE,
        gt_seg_map_loader_cfg=SETTINGS | NONE, file_client_args=SETTINGS),
    'CheckedDataset': dict(max_image_num=SIZE | NONE, few_shot=SETTINGS | NONE),
    'RepeatDataset': dict(dataset=DATASET, times=SIZE),
    'MultiImageMixDataset': dict(dataset=TYPED, pipeline=PIPELINE),
    'LoadImageFromFile': dict(color_type=TEXT, imdecode_backend=TEXT, file_client_args=SETTINGS),
    'LoadAnnotations': dict(reduce_zero_label=FLAG | NONE, imdecode_backend=TEXT,
                            file_client_args=SETTINGS),
    'Resize': dict(img_scale=SIDES, multiscale_mode=one_of('range', 'value'),
                   ratio_range=RANGE | NONE, min_size=SIZE | NONE),
    'SETR_Resize': dict(img_scale=SIDES, multiscale_mode=one_of('range', 'value'),
                        ratio_range=RANGE | NONE, crop_size=PAIR | NONE),
    'ResizeToMultiple': dict(size_divisor=SIZE),
    'PadShortSide': dict(size=SIZE, pad_val=COLOUR, seg_pad_val=WHOLE),
    'RandomCrop': dict(crop_size=PAIR, cat_max_ratio=SHARE, ignore_index=WHOLE),
    'RandomFlip': dict(prob=SHARE | NONE, direction=one_of('horizontal', 'vertical')),
    'PhotoMetricDistortion': dict(brightness_delta=NUMBER, contrast_range=RANGE,
                                  saturation_range=RANGE, hue_delta=NUMBER),
    'Normalize': NORMALIZE,
    'Pad': dict(size=PAIR | NONE, size_divisor=SIZE | NONE, pad_val=COLOUR, seg_pad_val=WHOLE),
    'Collect': dict(keys=many(TEXT), meta_keys=many(TEXT)),
    'ImageToTensor': dict(keys=many(TEXT)),
    'MultiScaleFlipAug': dict(transforms=PIPELINE, img_scale=SIDES,
                              img_ratios=NUMBER | many(NUMBER) | NONE, flip_direction=TEXTS),
    'Optimizer': OPTIMIZER,
    'IterBasedRunner': dict(max_iters=steps(1) | NONE),
    'SegRunner': dict(accumulation=SIZE),
    'EpochBasedRunner': dict(max_epochs=SIZE | NONE),
    'LrUpdaterHook': dict(
        warmup=one_of(None, 'constant', 'linear', 'exp'), warmup_iters=steps(1),
        warmup_ratio=number(above=0, most=1), step=steps(1) | many(steps(1)), periods=many(STEPS)),
    'PolyLrUpdaterHook': dict(power=number(0), min_lr=number(0)),
    'CheckpointHook': dict(
        interval=steps(1) | one_of(-1), max_keep_ckpts=STEPS, out_dir=PATH),
    'SegCheckpointHook': dict(background=FLAG | NONE),
    'EMAHook': dict(momentum=number(above=0, most=1), interval=SIZE, warm_up=SIZE),
    'OptimizerHook': dict(grad_clip=CLIPPING | NONE),
    'LoggerHook': dict(interval=steps(1)),
}
# Parameters of what a class passes its ``**kwargs`` on to, which takes no others.
FURTHER_PARAMETERS: dict[str, dict[str, Kind]] = {
    'CheckpointHook': dict(filename_tmpl=TEXT, meta=SETTINGS, create_symlink=FLAG, deepspeed=FLAG),
}
LOADER = dict(
    samples_per_gpu=SIZE, workers_per_gpu=COUNT, persistent_workers=FLAG, pin_memory=FLAG,
    shuffle=FLAG, drop_last=FLAG, prefetch_factor=SIZE | NONE, timeout=number(0), seed=WHOLE | NONE,
    dist=FLAG, num_gpus=SIZE, multiprocessing_context=ANY, pin_memory_device=TEXT)
DATA = dict(LOADER, train=DATASET, val=DATASET, test=DATASET,
            **{f'{part}_dataloader': SETTINGS for part in ('train', 'val', 'test')})
TEST_CFG = dict(
    mode=one_of('slide', 'whole'), crop_size=PAIR, stride=PAIR, window_batch=SIZE | NONE,
    subdivision_steps=COUNT, subdivision_num_points=SIZE, scale_factor=POSITIVE)
TRAIN_CFG = dict(num_points=SIZE, oversample_ratio=POSITIVE, importance_sample_ratio=SHARE)
PARAMWISE = dict(
    custom_keys=SETTINGS, bias_lr_mult=FACTOR, bias_decay_mult=FACTOR, norm_decay_mult=FACTOR,
    dwconv_decay_mult=FACTOR, dcn_offset_lr_mult=FACTOR, bypass_duplicate=FLAG)
CUSTOM_KEY = dict(lr_mult=FACTOR, decay_mult=FACTOR)  # for the parameters whose names hold the key
LAYER_DECAY: dict[str, dict[str, Kind]] = dict(  # by the library of the constructor
    mmseg_custom=dict(num_layers=SIZE, layer_decay_rate=POSITIVE, decay_embeddings=FLAG),
    mmseg=dict(num_layers=SIZE, decay_rate=POSITIVE, decay_type=TEXT, layer_decay_rate=POSITIVE))
# Of hooks, which mmcv calls in this order.
PRIORITY = Kind('one of ' + ', '.join(Priority.__members__) + ', or 0 to 100',
                lambda value: value in range(101) if WHOLE.holds(value) else
                isinstance(value, str) and value.upper() in Priority.__members__)
NORM_TYPE = Kind("a number above 0, or 'inf'", lambda value: value == 'inf' or (
    is_real(value) and value > 0))
GRAD_CLIP = dict(max_norm=POSITIVE, norm_type=NORM_TYPE, error_if_nonfinite=FLAG,
                 foreach=FLAG | NONE)
LOGGING = Kind('dict(interval=..., hooks=[...])', lambda value: isinstance(value, Mapping) and (
    {'interval', 'hooks'} <= value.keys()))
LOG_CONFIG = dict(interval=steps(1), hooks=many(TYPED))
CUSTOM_IMPORTS = dict(imports=TEXT | many(TEXT) | NONE, allow_failed_imports=FLAG)
# What mmseg's hook reads, and the evaluate of its data sets.
EVALUATION = dict(
    interval=steps(1), start=STEPS | NONE, by_epoch=FLAG, metric=TEXTS, save_best=PATH,
    rule=one_of(None, 'greater', 'less'), out_dir=PATH, pre_eval=FLAG, efficient_test=FLAG,
    broadcast_bn_buffer=FLAG, gpu_collect=FLAG, tmpdir=PATH, test_fn=ANY, less_keys=TEXTS | NONE,
    greater_keys=TEXTS | NONE, file_client_args=SETTINGS | NONE, logger=ANY, gt_seg_maps=ANY,
    imgfile_prefix=TEXT, nan_to_num=NUMBER | NONE, priority=ANY)
LAUNCHING = dict(backend=TEXT, timeout_minutes=POSITIVE, port=WHOLE)

LEVELS = one_of('CRITICAL', 'FATAL', 'ERROR', 'WARNING', 'WARN', 'INFO', 'DEBUG', 'NOTSET')

# Keys of a config that runs read, ours first.
SETTINGS_OF_RUNS: dict[str, Kind] = dict(
    accumulation=SIZE, checkpoint_config=SETTINGS | NONE, crop_size=PAIR | SIZE,
    cudnn_benchmark=FLAG,
    custom_hooks=many(TYPED) | NONE, custom_imports=SETTINGS | NONE, data=SETTINGS,
    deepspeed=FLAG, deepspeed_config=TEXT | SETTINGS | NONE,
    dist_params=SETTINGS | NONE, engine=SETTINGS | NONE, evaluation=SETTINGS | NONE,
    feature_cache=SETTINGS | NONE, find_unused_parameters=FLAG,
    head_precision=one_of(None, 'fp32', 'bf16'), load_from=PATH,
    load_from_without=TEXT | many(TEXT) | NONE,
    log_config=LOGGING | NONE, log_level=LEVELS | WHOLE, lr_config=SETTINGS | NONE, model=TYPED,
    momentum_config=SETTINGS | NONE, mp_start_method=one_of(None, 'fork', 'spawn', 'forkserver'),
    opencv_num_threads=WHOLE | NONE, optimizer=TYPED, optimizer_config=SETTINGS | NONE,
    precision=one_of(None, 'bf16', 'fp16', 'fp32'), resume_from=PATH, runner=TYPED | NONE,
    sweep=SETTINGS | NONE,
    test_cfg=SETTINGS | NONE, total_batch=SIZE | NONE, total_epochs=steps(1) | NONE,
    total_iters=steps(1) | NONE,
    train_cfg=SETTINGS | NONE, work_dir=PATH, workflow=many(ANY))
# Those that a test reads.
TESTED = ('cudnn_benchmark', 'custom_imports', 'data', 'deepspeed', 'deepspeed_config',
          'dist_params', 'engine', 'head_precision', 'log_level', 'model', 'mp_start_method',
          'opencv_num_threads', 'precision', 'test_cfg', 'work_dir')
# Keys that mmseg's tools write into the configs they save, or that the original's configs have;
# the command line sets what they stand for.
WITHOUT_EFFECT: dict[str, str] = dict(
    auto_resume='--auto-resume', device='--device', gpu_ids='--gpu-id', gpus='--gpu-id',
    launcher='--launcher', local_rank='--launcher', seed='--seed',
    deterministic='--deterministic', fp16='precision', auto_scale_lr='optimizer.lr')
