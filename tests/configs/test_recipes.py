"""The shipped recipes: each published setting is pinned, and each config builds.

The table below is what was published; it is written out here in full, and not derived from the
configs. test_resolved.py holds every setting of every config as it is today.
"""
from pathlib import Path
from typing import NamedTuple

import mmseg_custom  # noqa: F401  (registers what the configs name; before mmseg, see compat)

# isort: split
import mmseg
import pytest
import torch
from helpers.commands import ROOT
from mmcv import Config
from mmcv.runner import HOOKS
from mmseg.datasets.builder import DATASETS, PIPELINES
from mmseg.models import build_segmentor

CONFIGS = ROOT / 'configs'
MMSEG_BASES = Path(mmseg.__file__).parent / '.mim' / 'configs' / '_base_'
BASES = CONFIGS / '_base_'


class Row(NamedTuple):
    """A line of the published table; iterations and images are counts."""

    iters: int
    warmup_iters: int
    max_images: int | None
    frozen: bool
    pyramid: bool
    out_indices: list
    drop_path: float
    weight_decay: float
    layer_decay: float
    head: str
    aux_in_index: int | None
    test_resize: str


FOUR_MAPS = [11, 23, 35, 47]
FEW_SHOT = 'few_shot/linear_intern_vit_6b_504_'
TABLE = {
    FEW_SHOT + '5k_ade20k_bs16_lr4e-5_1of16': Row(
        5000, 100, 1263, False, False, [47], 0.4, 0.05, 0.95, 'linear', None, 'Resize'),
    FEW_SHOT + '10k_ade20k_bs16_lr4e-5_1of8': Row(
        10000, 200, 2526, False, False, [47], 0.4, 0.05, 0.95, 'linear', None, 'Resize'),
    FEW_SHOT + '20k_ade20k_bs16_lr4e-5_1of4': Row(
        20000, 400, 5052, False, False, [47], 0.4, 0.05, 0.95, 'linear', None, 'Resize'),
    FEW_SHOT + '40k_ade20k_bs16_lr4e-5_1of2': Row(
        40000, 800, 10105, False, False, [47], 0.4, 0.05, 0.95, 'linear', None, 'Resize'),
    FEW_SHOT + '80k_ade20k_bs16_lr4e-5_1of1': Row(
        80000, 1500, None, False, False, [47], 0.4, 0.05, 0.95, 'linear', None, 'SETR_Resize'),
    'linear_probing/linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen': Row(
        80000, 1500, None, True, False, [44], 0.0, 0.0, 1.0, 'linear', None, 'SETR_Resize'),
    'head_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen': Row(
        80000, 1500, None, True, True, FOUR_MAPS, 0.0, 0.05, 1.0, 'upernet', 1, 'SETR_Resize'),
    'full_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5': Row(
        80000, 1500, None, False, True, FOUR_MAPS, 0.4, 0.05, 0.95, 'upernet', 2, 'SETR_Resize'),
}
TINY = {name: f'tiny/{name}_tiny.py'
        for name in ('linear_probing', 'head_tuning', 'few_shot', 'full_tuning')}
# Not of that table: see test_in_part.py, test_vit_adapter.py and the tests of heads and backbones.
OTHERS = {kind: f'tiny/{kind}_tiny.py' for kind in (
    'lora', 'last_blocks', 'plain_mask', 'eomt', 'vit_adapter', 'frozen_vit')}
MASKS = [OTHERS['plain_mask'], OTHERS['eomt'], *(f'intern_vit_6b/{name}.py' for name in (
    'plain_mask/plain_mask_intern_vit_6b_504_80k_ade20k_bs16_lr1e-4_frozen',
    'eomt/eomt_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5'))]
SHIPPED = [f'intern_vit_6b/{name}.py' for name in TABLE] + list(TINY.values())

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
CROSS_ENTROPY = dict(type='CrossEntropyLoss', use_sigmoid=False)
SYNC_BN = dict(type='SyncBN', requires_grad=True)
HEADS = {
    'linear': dict(
        type='FCNHead', in_channels=3200, channels=3200, num_convs=0, concat_input=False,
        with_norm=True, dropout_ratio=0.0, num_classes=150,
        loss_decode=dict(CROSS_ENTROPY, loss_weight=1.0)),
    'upernet': dict(
        type='UPerHead', in_channels=[3200] * 4, in_index=[0, 1, 2, 3], channels=1536,
        pool_scales=(1, 2, 3, 6), dropout_ratio=0.1, num_classes=150, norm_cfg=SYNC_BN,
        align_corners=False, loss_decode=dict(CROSS_ENTROPY, loss_weight=1.0)),
}
AUX_HEAD = dict(
    type='FCNHead', in_channels=3200, channels=1536, num_convs=1, concat_input=False,
    dropout_ratio=0.1, num_classes=150, norm_cfg=SYNC_BN, align_corners=False,
    loss_decode=dict(CROSS_ENTROPY, loss_weight=0.4))


def load(name):
    """Read a config by its path below configs/."""
    return Config.fromfile(CONFIGS / name)


@pytest.fixture(params=TABLE, ids=lambda name: name.split('/')[0] + '-' + name.split('_')[-1])
def published(request):
    """Each of the eight published recipes: its row of the table and its config."""
    return TABLE[request.param], load(f'intern_vit_6b/{request.param}.py')


def test_the_published_names_are_the_files_that_are_there():
    found = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob('*.py')
             if path.parent.parent.name == 'intern_vit_6b' and 'ade20k' in path.name
             and path.parent.name not in OTHERS or path.parent.name == 'tiny'}
    assert found == {*SHIPPED, *OTHERS.values()}


def test_published_row(published):
    row, cfg = published
    backbone, train = cfg.model.backbone, cfg.data.train
    aux = cfg.model.get('auxiliary_head')
    assert Row(
        iters=cfg.runner.max_iters,
        warmup_iters=cfg.lr_config.warmup_iters,
        max_images=train.get('max_image_num'),
        frozen=backbone.freeze_vit,
        pyramid=backbone.get('with_fpn', False),
        out_indices=backbone.out_indices,
        drop_path=backbone.drop_path_rate,
        weight_decay=cfg.optimizer.weight_decay,
        layer_decay=cfg.optimizer.paramwise_cfg.layer_decay_rate,
        head={'FCNHead': 'linear', 'UPerHead': 'upernet'}[cfg.model.decode_head.type],
        aux_in_index=aux and aux.in_index,
        test_resize=cfg.data.test.pipeline[1].transforms[0].type) == row


def test_published_heads(published):
    row, cfg = published
    assert cfg.model.decode_head == HEADS[row.head]
    if row.aux_in_index is None:
        assert 'auxiliary_head' not in cfg.model
    else:
        assert cfg.model.auxiliary_head == dict(AUX_HEAD, in_index=row.aux_in_index)


def test_published_backbone(published):
    _, cfg = published
    per_recipe = ('freeze_vit', 'with_fpn', 'out_indices', 'drop_path_rate')
    assert {key: value for key, value in cfg.model.backbone.items() if key not in per_recipe} == {
        'type': 'InternViT6B', 'pretrained': './pretrained/intern_vit_6b_224px.pth',
        'pretrain_size': 224, 'img_size': 504, 'patch_size': 14, 'embed_dim': 3200, 'depth': 48,
        'num_heads': 25, 'mlp_ratio': 4.0, 'qkv_bias': False, 'qk_normalization': True,
        'init_values': 0.1, 'layerscale_force_fp32': False, 'use_flash_attn': True,
        'with_cp': True}
    assert cfg.model.pretrained is None
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(504, 504), stride=(322, 322))


def test_published_schedule(published):
    row, cfg = published
    assert cfg.optimizer == dict(
        type='AdamW', lr=4e-5, betas=(0.9, 0.999), weight_decay=row.weight_decay,
        constructor='CustomLayerDecayOptimizerConstructor',
        paramwise_cfg=dict(num_layers=48, layer_decay_rate=row.layer_decay))
    assert cfg.optimizer_config == {}
    assert cfg.lr_config == dict(
        policy='poly', power=1.0, min_lr=0.0, by_epoch=False,
        warmup='linear', warmup_iters=row.warmup_iters, warmup_ratio=1e-6)
    assert cfg.runner == dict(type='IterBasedRunner', max_iters=row.iters)
    assert cfg.checkpoint_config == dict(by_epoch=False, interval=1000, max_keep_ckpts=2)
    assert cfg.evaluation == dict(interval=1000, metric='mIoU', save_best='mIoU', pre_eval=True)
    assert cfg.custom_hooks == [dict(type='ToBFloat16Hook', priority=49)]


def test_published_data(published):
    _, cfg = published
    # 2 images on each of 8 GPUs: the bs16 of the name.
    assert (cfg.data.samples_per_gpu, cfg.data.workers_per_gpu) == (2, 4)
    splits = {'train': 'training', 'val': 'validation', 'test': 'validation'}
    for split, folder in splits.items():
        data = cfg.data[split]
        assert (data.type, data.data_root, data.img_dir, data.ann_dir) == (
            'ADE20KDataset', 'data/ade/ADEChallengeData2016',
            f'images/{folder}', f'annotations/{folder}')
        assert split == 'train' or 'max_image_num' not in data
    assert cfg.data.train.pipeline == [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='Resize', img_scale=(2016, 504), ratio_range=(0.5, 2.0)),
        dict(type='RandomCrop', crop_size=(504, 504), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='Normalize', **IMAGENET),
        dict(type='Pad', size=(504, 504), pad_val=0, seg_pad_val=255),
        dict(type='DefaultFormatBundle'),
        dict(type='Collect', keys=['img', 'gt_semantic_seg'])]


def test_published_test_pipeline(published):
    row, cfg = published
    resize = dict(type=row.test_resize, keep_ratio=True)
    if row.test_resize == 'SETR_Resize':
        resize.update(crop_size=(504, 504), setr_multi_scale=True)
    assert cfg.data.val.pipeline == cfg.data.test.pipeline == [
        dict(type='LoadImageFromFile'),
        dict(type='MultiScaleFlipAug', img_scale=(2016, 504), flip=False, transforms=[
            resize,
            dict(type='ResizeToMultiple', size_divisor=14),
            dict(type='RandomFlip'),
            dict(type='Normalize', **IMAGENET),
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img'])])]


@pytest.mark.parametrize('name', [*SHIPPED, *MASKS])
def test_builds_on_the_meta_device(name):
    cfg = load(name)
    cfg.model.backbone.pretrained = None
    with torch.device('meta'):
        model = build_segmentor(cfg.model)
    trained = [key for key, p in model.backbone.named_parameters() if p.requires_grad]
    if not cfg.model.backbone.freeze_vit:
        assert len(trained) == len(list(model.backbone.parameters()))
    elif cfg.model.backbone.get('with_fpn'):
        assert trained
        assert all(key.startswith(('up1.', 'up2.', 'up3.', 'up4.')) for key in trained)
    else:
        assert trained == []
    assert all(p.requires_grad for p in model.decode_head.parameters())
    if 'tiny' not in name:
        assert sum(p.numel() for p in model.backbone.parameters()) > 5.8e9


@pytest.mark.parametrize('name', [*SHIPPED, *OTHERS.values()])
def test_every_name_is_registered(name):
    cfg = load(name)
    assert cfg.data.train.type in DATASETS
    train, test = cfg.data.train.pipeline, cfg.data.test.pipeline
    steps = train + test + test[1].transforms
    assert [step.type for step in steps if step.type not in PIPELINES] == []
    assert [hook.type for hook in cfg.custom_hooks if hook.type not in HOOKS] == []


@pytest.mark.parametrize('folder', [
    *TINY, *(kind for kind in OTHERS if kind not in ('vit_adapter', 'frozen_vit'))])
def test_a_tiny_recipe_is_its_published_namesake_in_small(folder):
    """Beside the sizes, a tiny recipe may differ from the one of InternViT-6B in nothing."""
    tiny = load({**TINY, **OTHERS}[folder])
    name = next((name for name in reversed(TABLE) if name.startswith(folder)), None)
    full = load(f'intern_vit_6b/{name}.py' if name else next(
        path for path in CONFIGS.glob(f'intern_vit_6b/{folder}/*_80k_ade20k_*.py')
        if not path.stem.startswith('upernet')))
    sizes = {'pretrained', 'pretrain_size', 'img_size', 'embed_dim', 'depth', 'num_heads',
             'init_values', 'drop_path_rate', 'with_cp', 'out_indices', 'in_channels', 'channels',
             'crop_size', 'stride', 'img_scale', 'size', 'data_root', 'samples_per_gpu',
             'workers_per_gpu', 'max_image_num', 'lr', 'num_layers', 'warmup_iters', 'max_iters',
             'interval', 'r', 'alpha', 'train_last', 'num_blocks', 'num_points'}
    for section in ('model', 'data', 'optimizer', 'lr_config', 'runner', 'checkpoint_config',
                    'evaluation', 'custom_hooks'):
        assert without(tiny[section], sizes) == without(full[section], sizes), section
    backbone = tiny.model.backbone
    assert max(backbone.out_indices) < backbone.depth == tiny.optimizer.paramwise_cfg.num_layers
    # It ends on an evaluation and a checkpoint.
    assert tiny.runner.max_iters % tiny.evaluation.interval == 0
    assert tiny.runner.max_iters % tiny.checkpoint_config.interval == 0


def without(value, keys):
    """Copy nested dicts and lists, leaving out some keys of the dicts."""
    if isinstance(value, dict):
        return {key: without(item, keys) for key, item in value.items() if key not in keys}
    if isinstance(value, list):
        return [without(item, keys) for item in value]
    return value


@pytest.mark.parametrize('base', [
    'models/upernet_r50.py', 'models/segmenter_vit-b16_mask.py', 'schedules/schedule_20k.py',
    'schedules/schedule_40k.py', 'schedules/schedule_80k.py'])
def test_a_base_under_mmseg_s_name_says_what_mmseg_s_does(base):
    ours, theirs = Config.fromfile(BASES / base), Config.fromfile(MMSEG_BASES / base)
    for key in theirs:
        assert ours[key] == theirs[key]
    assert not ours.get('custom_hooks')
