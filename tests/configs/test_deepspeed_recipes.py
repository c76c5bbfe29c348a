"""Recipes in the layout of the fork that trains with DeepSpeed are ours, with PyTorch's engines."""
import pytest
from helpers.commands import ROOT

from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions

CONFIGS = ROOT / 'configs'
SECTIONS = ('data', 'optimizer', 'optimizer_config', 'lr_config', 'runner', 'evaluation',
            'checkpoint_config', 'custom_hooks')
TEMPLATE = """
_base_ = ['../../_base_/models/upernet_r50.py', '../../_base_/datasets/ade20k_504x504.py',
          '../../_base_/default_runtime.py', '../../_base_/schedules/schedule_80k.py']
deepspeed = True
deepspeed_config = './zero_configs/zero1.json'
pretrained = './pretrained/intern_vit_6b_224px.pth'
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True, type='InternViT6B', pretrained=pretrained, pretrain_size=224,
        img_size=504, patch_size=14, embed_dim=3200, depth=48, num_heads=25, mlp_ratio=4.,
        qkv_bias=False, qk_normalization=True, init_values=0.1, with_cp=True,
        use_flash_attn=True, layerscale_force_fp32=False, freeze_vit={frozen},
        drop_path_rate={drop_path}, with_fpn=True, out_indices=[11, 23, 35, 47]),
    decode_head=dict(num_classes=150, in_channels=[3200, 3200, 3200, 3200], channels=1536),
    auxiliary_head=dict(num_classes=150, in_channels=3200, channels=1536, in_index={in_index}),
    test_cfg=dict(mode='slide', crop_size=(504, 504), stride=(322, 322)))
optimizer = dict(
    _delete_=True, type='AdamW', lr=4e-5, betas=(0.9, 0.999), weight_decay=0.05,
    constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers=48, layer_decay_rate={layer_decay}))
lr_config = dict(
    _delete_=True, policy='poly', power=1.0, min_lr=0.0, by_epoch=False,
    warmup='linear', warmup_iters=1500, warmup_ratio=1e-6)
data = dict(samples_per_gpu=2)
runner = dict(type='IterBasedRunner')
if deepspeed:
    checkpoint_config = dict(deepspeed=True, by_epoch=False, interval=1000, max_keep_ckpts=2)
evaluation = dict(interval=1000, metric='mIoU', save_best='auto')
custom_hooks = [dict(type='ToBFloat16Hook', priority=49)]
"""
RECIPES = {
    'head_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen': dict(
        frozen=True, drop_path=0.0, in_index=1, layer_decay=1.0),
    'full_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5': dict(
        frozen=False, drop_path=0.4, in_index=2, layer_decay=0.95)}


@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.parametrize('with_json', [True, False])
def test_a_recipe_with_deepspeed_is_ours(name, with_json, tmp_path):
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/_base_').symlink_to(CONFIGS / '_base_', target_is_directory=True)
    path = tmp_path / 'configs/intern_vit_6b/tuning/recipe.py'
    path.parent.mkdir(parents=True)
    path.write_text(TEMPLATE.format(**RECIPES[name]))
    if with_json:
        (tmp_path / 'zero_configs').mkdir()
        (tmp_path / 'zero_configs/zero1.json').write_text(
            '{"train_batch_size": 16, "gradient_accumulation_steps": 1, "bf16": {"enabled": true},'
            ' "zero_optimization": {"stage": 1, "overlap_comm": true}}')
    options = RunOptions(launcher='pytorch')
    theirs, notes = resolve_config(load_config(str(path)), options)
    ours, _ = resolve_config(load_config(f'{CONFIGS}/intern_vit_6b/{name}.py'), options)
    build_network(theirs, on_meta=True)
    assert sum('deepspeed' in note for note in notes) == 1
    for section in SECTIONS:
        assert theirs[section] == ours[section], section
    assert theirs.get('engine') == (dict(type='auto') if with_json else None)
    assert 'precision' not in theirs
