"""The published recipe of ViT-Adapter: every setting is pinned, and the original's file loads."""
import mmseg_custom  # noqa: F401  (registers what the configs name; before mmseg, see compat)

# isort: split
import pytest
import torch
from configs.test_recipes import AUX_HEAD, CONFIGS, HEADS, IMAGENET, load, without
from mmcv import Config

from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.optim.layer_decay import depth_of

NAME = ('intern_vit_6b/vit_adapter/'
        'upernet_intern_vit_adapter_6b_512_80k_ade20k_bs16_lr4e-5.py')
BACKBONE = dict(
    type='InternViTAdapter', pretrain_size=224, img_size=512, patch_size=16, embed_dim=3200,
    depth=48, num_heads=25, mlp_ratio=4.0, qkv_bias=False, drop_path_rate=0.0, init_values=0.0,
    with_cp=True, use_flash_attn=True, qk_normalization=True, layerscale_force_fp32=False,
    with_fpn=False, freeze_vit=True, use_final_norm=True,
    interaction_indexes=[[0, 11], [12, 23], [24, 35], [36, 47]], cffn_ratio=0.25,
    deform_ratio=0.25, pretrained='./pretrained/intern_vit_6b_224px.pth')
# As the original's file has it: bases of MMSegmentation, and keys of DeepSpeed.
ORIGINAL = """
_base_ = ['../../_base_/models/upernet_r50.py', '../../_base_/datasets/ade20k.py',
          '../../_base_/default_runtime.py', '../../_base_/schedules/schedule_80k.py']
deepspeed = True
deepspeed_config = 'zero_configs/adam_zero1_fp16.json'
pretrained = './pretrained/intern_vit_6b_224px.pth'
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, {backbone}),
    decode_head=dict(num_classes=150, channels=1536, in_channels=[3200, 3200, 3200, 3200]),
    auxiliary_head=dict(num_classes=150, channels=1536, in_channels=3200),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
optimizer = dict(
    _delete_=True, type='AdamW', lr=4e-5, betas=(0.9, 0.999), weight_decay=0.05,
    constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers=48, layer_decay_rate=0.95))
lr_config = dict(
    _delete_=True, policy='poly', warmup='linear', warmup_iters=1500, warmup_ratio=1e-6,
    power=1.0, min_lr=0.0, by_epoch=False)
data = dict(samples_per_gpu=2)
runner = dict(type='IterBasedRunner')
checkpoint_config = dict(deepspeed=True, by_epoch=False, interval=1000, max_keep_ckpts=2)
evaluation = dict(interval=1000, metric='mIoU', save_best='auto')
custom_hooks = [dict(type='ToFloat16Hook', priority=49)]
"""


@pytest.fixture
def original(tmp_path) -> Config:
    """The original's config, in a tree with our bases."""
    (tmp_path / '_base_').symlink_to(CONFIGS / '_base_', target_is_directory=True)
    folder = tmp_path / 'intern_vit_6b' / 'vit_adapter'
    folder.mkdir(parents=True)
    options = ', '.join(f'{name}={value!r}' for name, value in BACKBONE.items())
    (folder / 'recipe.py').write_text(ORIGINAL.format(backbone=options))
    return load_config(str(folder / 'recipe.py'), {'custom_imports.imports': ['mmseg_custom']})


def test_published_model():
    cfg = load(NAME)
    assert cfg.model.backbone == BACKBONE
    assert cfg.model.pretrained is None and cfg.model.train_cfg == {}
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    assert cfg.model.decode_head == HEADS['upernet']
    assert cfg.model.auxiliary_head == dict(AUX_HEAD, in_index=2)


def test_published_schedule():
    cfg = load(NAME)
    assert cfg.optimizer == dict(
        type='AdamW', lr=4e-5, betas=(0.9, 0.999), weight_decay=0.05,
        constructor='CustomLayerDecayOptimizerConstructor',
        paramwise_cfg=dict(num_layers=48, layer_decay_rate=0.95))
    assert cfg.lr_config == dict(policy='poly', power=1.0, min_lr=0.0, by_epoch=False,
                                 warmup='linear', warmup_iters=1500, warmup_ratio=1e-6)
    assert cfg.runner == dict(type='IterBasedRunner', max_iters=80000)
    assert cfg.checkpoint_config == dict(by_epoch=False, interval=1000, max_keep_ckpts=2)
    assert cfg.evaluation == dict(interval=1000, metric='mIoU', save_best='mIoU', pre_eval=True)
    assert cfg.custom_hooks == [dict(type='ToFloat16Hook', priority=49)]


def test_published_data():
    data = load(NAME).data
    assert (data.samples_per_gpu, data.workers_per_gpu) == (2, 4)
    assert data.train.pipeline == [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='Resize', img_scale=(2048, 512), ratio_range=(0.5, 2.0)),
        dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='Normalize', **IMAGENET),
        dict(type='Pad', size=(512, 512), pad_val=0, seg_pad_val=255),
        dict(type='DefaultFormatBundle'),
        dict(type='Collect', keys=['img', 'gt_semantic_seg'])]
    assert data.val.pipeline == data.test.pipeline == [
        dict(type='LoadImageFromFile'),
        dict(type='MultiScaleFlipAug', img_scale=(2048, 512), flip=False, transforms=[
            dict(type='SETR_Resize', keep_ratio=True, crop_size=(512, 512),
                 setr_multi_scale=True),
            dict(type='RandomFlip'),
            dict(type='Normalize', **IMAGENET),
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img'])])]


def test_the_original_s_file_is_our_recipe(original):
    ours = load(NAME)
    assert original.model.pop('type') == 'EncoderDecoder'  # ours is the same model, tested faster
    assert ours.model.pop('type') == 'InternViTSegmentor'
    for section in ('model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'runner',
                    'custom_hooks', 'log_config', 'dist_params'):
        assert original[section] == ours[section], section


def test_the_original_s_file_resolves_and_builds(original):
    cfg, _ = resolve_config(original, RunOptions())
    cfg.model.backbone.update(depth=4, interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]])
    model = build_network(cfg, on_meta=True)
    assert all(p.is_meta for p in model.parameters())  # 12 GB elsewhere, in the doctor too
    trained = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    assert trained == 143_796_184


def test_the_tiny_recipe_is_the_published_one_in_small():
    tiny, full = load('tiny/vit_adapter_tiny.py'), load(NAME)
    sizes = {'pretrained', 'pretrain_size', 'img_size', 'embed_dim', 'depth', 'num_heads',
             'with_cp', 'in_channels', 'channels', 'crop_size', 'stride', 'img_scale', 'size',
             'data_root', 'samples_per_gpu', 'workers_per_gpu', 'lr', 'num_layers',
             'warmup_iters', 'max_iters', 'interval', 'conv_inplane', 'deform_num_heads',
             'interaction_indexes'}
    for section in ('model', 'data', 'optimizer', 'lr_config', 'runner', 'checkpoint_config',
                    'evaluation', 'custom_hooks'):
        assert without(tiny[section], sizes) == without(full[section], sizes), section
    assert tiny.runner.max_iters % tiny.evaluation.interval == 0


def test_learning_rates_of_the_adapter_are_the_highest():
    """All that is trained stands after the blocks, so that nothing of it is decayed."""
    with torch.device('meta'):
        model = build_network(load('tiny/vit_adapter_tiny.py'))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {depth_of(name, 48) for name in trained} == {49}
