import pytest
import torch
from mmcv.runner import build_optimizer
from torch import nn

from mmseg_custom.models import InternViT6B
from mmseg_custom.optim.layer_decay import depth_of


def segmentor(**changes) -> nn.Module:
    model = nn.Module()
    model.backbone = InternViT6B(**{**dict(embed_dim=24, depth=2, num_heads=2, img_size=28,
                                           out_indices=[1]), **changes})
    model.decode_head = nn.Sequential(nn.BatchNorm2d(24), nn.Conv2d(24, 5, 1))
    return model


def optimizer(model: nn.Module, rate: float = 0.5, **options) -> torch.optim.Optimizer:
    return build_optimizer(model, dict(
        type='AdamW', lr=1.0, weight_decay=0.05, constructor='CustomLayerDecayOptimizerConstructor',
        paramwise_cfg=dict(num_layers=2, layer_decay_rate=rate, **options)))


@pytest.mark.parametrize('name, depth', [
    ('backbone.pos_embed', 0), ('backbone.patch_embed.proj.bias', 0),
    ('backbone.blocks.0.ls1.gamma', 1), ('backbone.blocks.47.mlp.fc1.weight', 48),
    ('backbone.up1.0.weight', 49), ('decode_head.conv_seg.weight', 49)])
def test_depth(name, depth):
    assert depth_of(name, 48) == depth


def test_rates_and_decay_of_each_group():
    groups = {g['group_name']: g for g in optimizer(segmentor()).param_groups}
    assert {name: (g['lr'], g['lr_scale'], g['weight_decay']) for name, g in groups.items()} == {
        'layer_0_decay': (0.125, 0.125, 0.05), 'layer_0_no_decay': (0.125, 0.125, 0.0),
        'layer_1_decay': (0.25, 0.25, 0.05), 'layer_1_no_decay': (0.25, 0.25, 0.0),
        'layer_2_decay': (0.5, 0.5, 0.05), 'layer_2_no_decay': (0.5, 0.5, 0.0),
        'layer_3_decay': (1.0, 1.0, 0.05), 'layer_3_no_decay': (1.0, 1.0, 0.0)}
    assert groups['layer_0_decay']['param_names'] == [
        'backbone.pos_embed', 'backbone.cls_token', 'backbone.patch_embed.proj.weight']
    assert 'backbone.blocks.0.ls1.gamma' in groups['layer_1_no_decay']['param_names']


def test_embeddings_can_be_excluded_from_decay():
    groups = {g['group_name']: g['param_names'] for g in optimizer(
        segmentor(), decay_embeddings=False).param_groups}
    assert groups['layer_0_decay'] == ['backbone.patch_embed.proj.weight']
    assert groups['layer_0_no_decay'][:2] == ['backbone.pos_embed', 'backbone.cls_token']


def test_frozen_parameters_are_in_no_group():
    groups = optimizer(segmentor(freeze_vit=True)).param_groups
    assert [n for g in groups for n in g['param_names'] if n.startswith('backbone')] == []


def test_each_trained_parameter_is_in_one_group():
    model = segmentor()
    listed = [p for g in optimizer(model).param_groups for p in g['params']]
    assert len(listed) == len(set(map(id, listed))) == len(list(model.parameters()))


def test_adapters_decay_by_their_depth():
    """Their matrices have weight decay; the norms of DoRA, which are vectors, have none."""
    adapt = dict(type='lora', r=2, targets=['qkv', 'fc2'], use_dora=True)
    groups = {g['group_name']: g for g in optimizer(segmentor(adapt=adapt)).param_groups}
    names = {name: g['param_names'] for name, g in groups.items()
             if 'backbone' in str(g['param_names'])}
    assert names == {f'layer_{i + 1}_{decay}': [
        f'backbone.blocks.{i}.{layer}.lora_{part}.default.weight'
        for layer in ('attn.qkv', 'mlp.fc2') for part in parts]
        for i in (0, 1)
        for decay, parts in (('decay', 'AB'), ('no_decay', ['magnitude_vector']))}
    assert {name: (groups[name]['lr'], groups[name]['weight_decay']) for name in names} == {
        'layer_1_decay': (0.25, 0.05), 'layer_1_no_decay': (0.25, 0.0),
        'layer_2_decay': (0.5, 0.05), 'layer_2_no_decay': (0.5, 0.0)}


def test_groups_hold_the_last_blocks_alone():
    options = dict(depth=3, out_indices=[2])
    groups = {g['group_name']: g['param_names']
              for g in optimizer(segmentor(train_last=1, **options)).param_groups}
    assert {name for name, names in groups.items() if 'backbone' in str(names)} == {
        'layer_3_decay', 'layer_3_no_decay'}
    groups = {g['group_name']: g['param_names'] for g in optimizer(
        segmentor(train_last=1, train_norms=True, **options)).param_groups}
    assert groups['layer_1_no_decay'] == [f'backbone.blocks.0.{name}' for name in (
        'norm1.weight', 'attn.q_norm.weight', 'attn.k_norm.weight', 'ls1.gamma', 'norm2.weight',
        'ls2.gamma')]
    assert 'layer_1_decay' not in groups
