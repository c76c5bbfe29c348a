"""The recipes of InternViT-300M: what makes them that family, and that each builds."""
import pytest
import torch
from helpers.commands import ROOT
from mmcv import Config
from mmseg.models import build_segmentor

KINDS = ('linear_probing', 'head_tuning', 'full_tuning')  # others: test_in_part.py
RECIPES = sorted(path for kind in KINDS
                 for path in (ROOT / 'configs/intern_vit_300m').glob(f'{kind}/*ade20k*.py'))


def test_three_kinds_at_two_sizes():
    assert len(RECIPES) == 6
    assert {path.parent.name for path in RECIPES} == set(KINDS)


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_recipe(path):
    cfg = Config.fromfile(path)
    size = int(path.stem.split('_')[4])
    backbone = cfg.model.backbone
    assert backbone.img_size == size
    assert cfg.model.test_cfg.crop_size == cfg.crop_size == (size, size)
    assert backbone.freeze_vit == path.stem.endswith('frozen')
    assert cfg.optimizer.paramwise_cfg.num_layers == backbone.depth == 24
    assert cfg.custom_imports.imports == ['mmseg_custom']
    for split in (cfg.data.val, cfg.data.test):
        assert split.pipeline[1].img_scale == (4 * size, size)
    backbone.pretrained = None
    with torch.device('meta'):
        model = build_segmentor(cfg.model)
    names = set(model.backbone.state_dict())
    assert 'blocks.0.attn.qkv.bias' in names and 'blocks.0.norm1.bias' in names
    assert not any('q_norm' in name for name in names)
    parameters = sum(p.numel() for n, p in model.backbone.named_parameters() if n[:2] != 'up')
    assert 300e6 < parameters < 310e6
