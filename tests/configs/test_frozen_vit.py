"""The examples of frozen networks of other libraries build, and fit their heads and crops."""
import pytest
from helpers.commands import ROOT
from transformers import DINOv3ViTConfig, SiglipVisionConfig

from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.input_checks import check_inputs
from mmseg_custom.models.backbone_options import backbone_option

LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
FOLDERS = {  # what config.json of the folders says of the network
    'dinov3': DINOv3ViTConfig(**LARGE, patch_size=16, num_register_tokens=4),
    'siglip2': SiglipVisionConfig(**LARGE, patch_size=16, image_size=512)}
RECIPES = sorted((ROOT / 'configs/frozen_vit').rglob('*.py'))


def test_there_are_three():
    assert [path.stem.split('_')[1] for path in RECIPES] == ['siglip2', 'dinov2', 'dinov3']


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem.split('_')[1])
def test_recipe(path, tmp_path):
    cfg = load_config(str(path))
    folder = FOLDERS.get(path.stem.split('_')[1])
    if folder is not None:
        folder.save_pretrained(tmp_path)
        cfg.model.backbone.name = str(tmp_path)
    size, patch = int(path.stem.split('_')[4]), backbone_option(cfg.model.backbone, 'patch_size')
    assert cfg.model.test_cfg.crop_size == cfg.crop_size == (size, size)
    assert size % patch == 0
    multiple = cfg.data.test.pipeline[1].transforms[1]
    assert (multiple.type, multiple.size_divisor) == ('ResizeToMultiple', patch)
    check_inputs(cfg)
    network = build_network(cfg, on_meta=True)
    frozen = [p for p in network.backbone.parameters() if not p.requires_grad]
    assert all(p.is_meta for p in frozen)
    assert 290e6 < sum(p.numel() for p in frozen) < 320e6
    trained = {name.partition('.')[0] for name, p in network.backbone.named_parameters()
               if p.requires_grad}
    assert trained == ({'up1', 'up2'} if cfg.model.backbone.get('with_fpn') else set())
