import pytest
import torch
from mmcv import Config
from mmseg.models import build_segmentor

from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.models.frozen_features import as_inputs, frozen_features, head_inputs

RECIPES = ['linear_probing_tiny', 'head_tuning_tiny']


def build(recipe: str) -> torch.nn.Module:
    cfg = Config.fromfile(f'configs/tiny/{recipe}.py')
    cfg.model.backbone.update(embed_dim=32, num_heads=2)
    heads = [cfg.model.decode_head, cfg.model.get('auxiliary_head')]
    for head in filter(None, heads):
        head.in_channels = [32] * 4 if isinstance(head.in_channels, list) else 32
        head.channels = 32
    model = build_segmentor(cfg.model)
    apply_precision(model, torch.bfloat16, 'cpu')
    return model


@pytest.mark.parametrize('recipe', RECIPES)
def test_heads_train_on_maps_as_on_images(recipe):
    model, losses = build(recipe), []
    batch = dict(img=torch.randn(2, 3, 112, 112), img_metas=[{}, {}],
                 gt_semantic_seg=torch.randint(0, 150, (2, 1, 112, 112)))
    cached = {**batch, 'feats': frozen_features(model, batch)}
    del cached['img']
    for inputs in (batch, as_inputs(cached)):
        torch.manual_seed(0)  # dropout
        losses.append(model.train_step(inputs, None)['loss'])
    assert torch.equal(*losses) and as_inputs(batch) is batch
    levels = head_inputs(model, frozen_features(model, cached))
    assert all(map(torch.equal, levels, model.extract_feat(batch['img'])))


def test_maps_of_a_kept_dtype_are_float32_in_use():
    feats = [torch.randn(1, 4, 2, 2).bfloat16()]
    found, = frozen_features(torch.nn.Module(), dict(feats=feats))
    assert found.dtype == torch.float32 and torch.equal(found, feats[0].float())


def test_another_backbone_keeps_its_mode():
    model = torch.nn.Module()
    model.backbone = torch.nn.BatchNorm2d(3)
    mean = model.backbone.running_mean.clone()
    maps = frozen_features(model, dict(img=torch.randn(2, 3, 4, 4) + 1))
    assert len(maps) == 2 and model.backbone.training  # it iterates over what came out
    assert torch.equal(model.backbone.running_mean, mean)
