"""A ViT-Adapter on a file with other patches and a class token, and its checkpoints."""
import re

import pytest
import torch
import torch.nn.functional as F
from helpers.logs import logged
from helpers.tiny_networks import ADAPTER, same, segmentor_config
from mmcv import Config
from mmseg.models import build_segmentor
from torch import nn

from mmseg_custom.checkpoint import load_segmentor, save_checkpoint
from mmseg_custom.checkpoint.changes import resample_patches
from mmseg_custom.checkpoint.content import check_backbone_record
from mmseg_custom.checkpoint.merge import merge, split
from mmseg_custom.doctor.weights import check_weights
from mmseg_custom.errors import InputError
from mmseg_custom.models import InternViT6B


@pytest.fixture
def file(tmp_path) -> str:
    """Weights for patches of 14 pixels on a grid of 4x4, in bfloat16, with a class token."""
    torch.manual_seed(0)
    network = InternViT6B(embed_dim=32, num_heads=2, depth=4, img_size=56, out_indices=[3])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    path = str(tmp_path / 'weights.pth')
    torch.save(network.state_dict(), path)
    return path


def options(pretrained: str | None) -> dict:
    return segmentor_config('upernet', **{**ADAPTER, 'with_fpn': False,
                                          'out_indices': [0, 1, 2, 3]},
                            pretrained=pretrained, heads=dict(norm_cfg=None))


def segmentor(pretrained: str | None) -> nn.Module:
    return build_segmentor(options(pretrained))


def test_embeddings_are_resampled_as_in_the_original(file):
    with logged() as lines:
        backbone = segmentor(file).backbone
    assert any('resampled bicubically: patch embedding from 14x14 to 16x16 pixels, position '
               'embedding from 4x4 to 2x2 patches' in line for line in lines)
    stored = torch.load(file)
    kernels = F.interpolate(stored['patch_embed.proj.weight'].float(), size=(16, 16),
                            mode='bicubic', align_corners=False)
    assert torch.equal(backbone.patch_embed.proj.weight, kernels.bfloat16())
    assert backbone.pos_embed.shape == (1, 5, 32) and backbone.cls_token is None
    name = 'blocks.3.mlp.fc2.weight'
    assert torch.equal(backbone.state_dict()[name], stored[name])
    assert 'cls_token' not in backbone.weights_source.names


def test_patches_of_the_same_side_keep_their_bits():
    kernels = torch.randn(4, 3, 16, 16)
    assert torch.equal(resample_patches(kernels, 16), kernels)


def test_a_checkpoint_leaves_the_transformer_to_its_file(file, tmp_path):
    model, path = segmentor(file), str(tmp_path / 'iter_1.pth')
    save_checkpoint(model, path)
    stored = torch.load(path)
    assert stored['meta']['backbone'].items() >= dict(patch_size=16, left_out=['cls_token']).items()
    parts = {re.match(r'(backbone\.)?\w+', name).group() for name in stored['state_dict']}
    assert parts == {*(f'backbone.{part}' for part in (
        'level_embed', 'spm', 'interactions', 'up', 'norm1', 'norm2', 'norm3', 'norm4')),
        'decode_head', 'auxiliary_head'}
    for built in (segmentor(None), segmentor(file)):
        load_segmentor(built, path)
        assert same(built.state_dict(), model.state_dict())


def test_merged_and_split_again(file, tmp_path):
    model = segmentor(file)
    small, whole, again = (str(tmp_path / name) for name in ('a.pth', 'whole.pth', 'again.pth'))
    save_checkpoint(model, small)
    merge(small, whole)
    state_dict = torch.load(whole)['state_dict']
    assert same(state_dict, model.state_dict())
    split(whole, again, file)
    for path in (whole, again):
        with torch.device('meta'):
            built = segmentor(None)
        load_segmentor(built, path)
        assert same(built.state_dict(), model.state_dict())


def test_the_doctor_takes_a_file_as_the_network_does(file):
    cfg = Config(dict(model=options(file)))
    findings, figures = check_weights(cfg)
    assert not findings and list(figures) == [file]


@pytest.mark.parametrize('change, words', [
    (lambda stored: stored.pop('blocks.3.norm2.weight'), 'missing: blocks.3.norm2.weight'),
    (lambda stored: stored.pop('pos_embed'), 'missing: pos_embed'),
    (lambda stored: stored.update({'spm.fc1.bias': torch.ones(32)}), 'unexpected: spm.fc1.bias'),
    (lambda stored: stored.update({'patch_embed.proj.weight': torch.ones(32, 3, 14, 12)}),
     'patch_size=14'),
    (lambda stored: stored.update({'patch_embed.proj.weight': torch.ones(
        32, 3, 14, 14, dtype=torch.int8)}), 'patch_size=14')])
def test_a_file_that_does_not_fit_is_refused(file, change, words):
    stored = torch.load(file)
    change(stored)
    torch.save(stored, file)
    with pytest.raises(InputError, match=words):
        segmentor(file)


@pytest.mark.parametrize('change', [dict(patch_size='16'), dict(patch_size=0),
                                    dict(patch_size=True), dict(left_out='cls_token')])
def test_records_of_other_kinds(change):
    record = dict(path='x', sha256='0' * 64, bytes=1, pos_embed_tokens=17, dtype='float32',
                  other_dtypes={})
    check_backbone_record(record, 'x.pth')
    with pytest.raises(InputError, match=f'x.pth.{next(iter(change))} is .*: expected'):
        check_backbone_record({**record, **change}, 'x.pth')
