"""The recipes of all releases of InternViT: which there are, and that each builds.

test_original_layout.py compares them with the published ones of InternVL-MMDetSeg.
"""
import pytest
import torch
from configs.test_recipes import CONFIGS
from configs.test_resolved import differences, recorded
from mmcv import Config
from mmseg.models import build_segmentor

KINDS = {'linear_probing': ('linear', '_frozen'), 'head_tuning': ('upernet', '_frozen'),
         'full_tuning': ('upernet', '')}
SETS = ('ade20k', 'cocostuff164k')
VERSIONS = ('v1_0', 'v1_2', 'v1_5', 'v2_5')
AT_448, SECOND_300M = [f'intern_vit_6b_448px_{v}' for v in VERSIONS], 'intern_vit_300m_448px_v2_5'


def recipes(release):
    return [f'{release}/{kind}/{head}_{release}_504_80k_{data}_bs16_lr4e-5{ending}.py'
            for kind, (head, ending) in KINDS.items() for data in SETS]


@pytest.fixture(scope='module')
def record():
    return recorded()


@pytest.mark.parametrize('release', [*AT_448, SECOND_300M])
def test_a_release_has_six_recipes_by_the_published_names(release):
    found = {path.relative_to(CONFIGS).as_posix() for path in (CONFIGS / release).rglob('*.py')}
    assert found == set(recipes(release))


@pytest.mark.parametrize('release', AT_448)
def test_releases_at_448_pixels_differ_in_their_file_alone(release, record):
    for name in recipes(release):
        first = name.replace(release, AT_448[0])
        assert record[name]['model.backbone']['pretrained'] == f'./pretrained/{release}.pth'
        found = differences(record[name], record[first])
        assert [line.partition(' ')[0] for line in found] == [
            'model.backbone.pretrained'] * (release != AT_448[0])


def test_the_second_300m_is_the_first_but_for_its_weights(record):
    for name in recipes(SECOND_300M):
        first = name.replace(SECOND_300M, 'intern_vit_300m').replace(
            'cocostuff164k', 'coco_stuff164k')
        found = differences(record[name], record[first])
        assert found == ["model.backbone.pretrained is './pretrained/InternViT-300M-448px-V2_5', "
                         "recorded as './pretrained/InternViT-300M-448px'"]


@pytest.mark.parametrize('kind', KINDS)
def test_names_of_the_first_version_are_the_same_recipes(kind, record):
    head, ending = KINDS[kind]
    published = f'intern_vit_6b/{kind}/{head}_intern_vit_6b_504_80k_cocostuff164k_bs16_lr4e-5'
    former = published.replace('cocostuff', 'coco_stuff')
    assert record[published + ending + '.py'] == record[former + ending + '.py']


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if 'v2_5' in release else pytest.mark.slow)
    for release in [*AT_448, SECOND_300M] for name in recipes(release)])
def test_builds_on_the_meta_device(name):
    cfg = Config.fromfile(CONFIGS / name)
    cfg.model.backbone.pretrained = None
    with torch.device('meta'):
        model = build_segmentor(cfg.model)
    blocks = model.backbone.blocks
    assert len(blocks) == max(model.backbone.out_indices) + 1  # all of them are read
    assert model.num_classes == (171 if 'cocostuff' in name else 150)
    assert any(p.requires_grad for p in blocks.parameters()) == ('full_tuning' in name)
    assert cfg.optimizer.paramwise_cfg.num_layers == len(blocks)
