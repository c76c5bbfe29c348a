"""A recipe written for the original's config tree means the same in this one.

Such a recipe starts from MMSegmentation's UPerNet or Segmenter base and a default schedule,
and replaces what differs: the backbone, the optimizer, the learning-rate policy. It also
carries keys that nothing reads. Each published recipe, of all releases of InternViT-6B, is written
that way here, put beside our bases and compared with the recipe of ours.
"""

import pytest
from helpers.commands import ROOT
from mmcv import Config

CONFIGS = ROOT / 'configs'

# What runs read. `evaluation` is compared apart, because the original leaves its save_best to
# mmcv, and dist_params and the like come from the same default_runtime.py.
SECTIONS = ('model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'runner',
            'checkpoint_config', 'custom_hooks', 'custom_imports', 'log_config', 'log_level',
            'dist_params', 'cudnn_benchmark', 'workflow', 'load_from', 'resume_from')

LINEAR_HEAD = """dict(
        _delete_=True, type='FCNHead', num_classes={classes}, in_channels=3200, channels=3200,
        with_norm=True, num_convs=0, concat_input=False, dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0))"""
UPER_HEAD = 'dict(num_classes={classes}, in_channels=[3200, 3200, 3200, 3200], channels=1536)'
AUX_HEAD = 'dict(num_classes={classes}, in_channels=3200, channels=1536)'
AUX_HEAD_OF_LAYER_1 = (
    'dict(num_classes={classes}, in_channels=3200, channels=1536, in_index=1)')

TEMPLATE = """
_base_ = ['../../_base_/models/{model}.py', '../../_base_/datasets/{data}_504x504{subset}.py',
          '../../_base_/default_runtime.py', '../../_base_/schedules/schedule_{k_iters}k.py']
deepspeed = False
deepspeed_config = 'zero_configs/some_file.json'
pretrained = './pretrained/{file}.pth'
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True, type='InternViT6B', pretrained=pretrained,
        pretrain_size={pretrain_size}, img_size=504, patch_size=14, embed_dim=3200,
        depth={depth}, num_heads=25, mlp_ratio=4.,
        qkv_bias=False, qk_normalization=True, init_values=0.1, with_cp=True,
        use_flash_attn=True, layerscale_force_fp32=False, {backbone}),
    {heads},
    test_cfg=dict(mode='slide', crop_size=(504, 504), stride=(322, 322)))
optimizer = dict(
    _delete_=True, type='AdamW', lr=4e-5, betas=(0.9, 0.999), weight_decay={weight_decay},
    constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers={depth}, layer_decay_rate={layer_decay}))
lr_config = dict(
    _delete_=True, policy='poly', power=1.0, min_lr=0.0, by_epoch=False,
    warmup='linear', warmup_iters={warmup_iters}, warmup_ratio=1e-6)
data = dict(samples_per_gpu=2)
runner = dict(type='IterBasedRunner')
if deepspeed:
    checkpoint_config = dict(deepspeed=True, by_epoch=False, interval=1000, max_keep_ckpts=2)
else:
    checkpoint_config = dict(by_epoch=False, interval=1000, max_keep_ckpts=2)
evaluation = dict(interval=1000, metric='mIoU', save_best='auto')
custom_hooks = [dict(type='ToBFloat16Hook', priority=49)]
"""


def few_shot(k_iters, part, warmup_iters):
    """The values for one recipe of the few-shot series, `part` being the divisor of the data."""
    name = f'few_shot/linear_intern_vit_6b_504_{k_iters}k_ade20k_bs16_lr4e-5_1of{part}'
    return name, dict(
        model='segmenter_vit-b16_mask', subset='' if part == 1 else f'_1of{part}',
        k_iters=k_iters, warmup_iters=warmup_iters, weight_decay=0.05, layer_decay=0.95,
        backbone='freeze_vit=False, drop_path_rate=0.4, out_indices=[47]',
        heads=f'decode_head={LINEAR_HEAD}')


FULL_DATA = dict(subset='', k_iters=80, warmup_iters=1500)
# Kind of recipe -> head and ending of its name, and its values.
KINDS = {
    'linear_probing': ('linear', '_frozen', dict(
        FULL_DATA, model='segmenter_vit-b16_mask', weight_decay=0.0, layer_decay=1.0,
        backbone='freeze_vit=True, drop_path_rate=0.0, out_indices=[44]',
        heads=f'decode_head={LINEAR_HEAD}')),
    'head_tuning': ('upernet', '_frozen', dict(
        FULL_DATA, model='upernet_r50', weight_decay=0.05, layer_decay=1.0,
        backbone='freeze_vit=True, drop_path_rate=0.0, with_fpn=True, out_indices={four_maps}',
        heads=f'decode_head={UPER_HEAD}, auxiliary_head={AUX_HEAD_OF_LAYER_1}')),
    'full_tuning': ('upernet', '', dict(
        FULL_DATA, model='upernet_r50', weight_decay=0.05, layer_decay=0.95,
        backbone='freeze_vit=False, drop_path_rate=0.4, with_fpn=True, out_indices={four_maps}',
        heads=f'decode_head={UPER_HEAD}, auxiliary_head={AUX_HEAD}')),
}
# Release, as names of recipes have it -> its values. The file of v1_0 holds three more blocks.
AT_224 = dict(file='intern_vit_6b_224px', pretrain_size=224, depth=48,
              four_maps=[11, 23, 35, 47])
RELEASES = {'intern_vit_6b': AT_224, **{
    f'intern_vit_6b_448px_{version}': dict(
        file=f'intern_vit_6b_448px_{version}', pretrain_size=448, depth=45,
        four_maps=[11, 22, 33, 44]) for version in ('v1_0', 'v1_2', 'v1_5', 'v2_5')}}
# Data, as names of recipes have it -> its values; `data` is a published name, too.
ADE20K = dict(data='ade20k', classes=150)
DATA = {'ade20k': ADE20K, 'cocostuff164k': dict(data='coco-stuff164k', classes=171)}
RECIPES = [
    *((f'intern_vit_6b/{name}', dict(AT_224, **ADE20K, **values)) for name, values in (
        few_shot(5, 16, 100), few_shot(10, 8, 200), few_shot(20, 4, 400), few_shot(40, 2, 800),
        few_shot(80, 1, 1500))),
    *((f'{release}/{kind}/{head}_{release}_504_80k_{data}_bs16_lr4e-5{ending}',
       {**RELEASES[release], **DATA[data], **values})
      for release in RELEASES for kind, (head, ending, values) in KINDS.items() for data in DATA)]


@pytest.fixture
def tree(tmp_path):
    """A configs folder to put recipes into, with our bases in it."""
    (tmp_path / '_base_').symlink_to(CONFIGS / '_base_', target_is_directory=True)
    folder = tmp_path / 'mine' / 'recipes'
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(('name', 'values'), RECIPES, ids=[name for name, _ in RECIPES])
def test_a_recipe_in_the_original_s_layout_is_ours(name, values, tree):
    path = tree / 'recipe.py'
    parts = {part: values[part].format(**values) for part in ('backbone', 'heads')}
    path.write_text(TEMPLATE.format(**{**values, **parts}))
    theirs = Config.fromfile(path, import_custom_modules=False)
    ours = Config.fromfile(CONFIGS / f'{name}.py', import_custom_modules=False)
    assert theirs.model.pop('type') == 'EncoderDecoder'  # ours is the same model, tested faster
    assert ours.model.pop('type') == 'InternViTSegmentor'
    for section in SECTIONS:
        assert theirs[section] == ours[section], section
    assert dict(theirs.evaluation, save_best='mIoU') == ours.evaluation


@pytest.mark.parametrize('base', ['ade20k', 'coco-stuff164k'])
def test_a_dataset_base_keeps_the_original_s_batch_size(base, tree):
    """A recipe that leaves samples_per_gpu to the base trains with 4, as it did there."""
    path = tree / 'recipe.py'
    path.write_text(f"_base_ = '../../_base_/datasets/{base}_504x504.py'\n")
    assert Config.fromfile(path).data.samples_per_gpu == 4
