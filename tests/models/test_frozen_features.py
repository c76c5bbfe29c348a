import pytest
import torch
from mmcv import Config
from mmseg.models import build_segmentor

from mmseg_custom.compat.feature_batches import batch_for
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.models.frozen_features import frozen_features

RECIPES = ['linear_probing_tiny', 'head_tuning_tiny']


def build(recipe: str, segmentor: str) -> torch.nn.Module:
    cfg = Config.fromfile(f'configs/tiny/{recipe}.py')
    cfg.model.type = segmentor
    cfg.model.backbone.update(embed_dim=32, num_heads=2)
    heads = [cfg.model.decode_head, cfg.model.get('auxiliary_head')]
    for head in filter(None, heads):
        head.in_channels = [32] * 4 if isinstance(head.in_channels, list) else 32
        head.channels = 32
    model = build_segmentor(cfg.model)
    apply_precision(model, torch.bfloat16, 'cpu')
    return model


@pytest.mark.parametrize('segmentor', ['InternViTSegmentor', 'EncoderDecoder'])
@pytest.mark.parametrize('recipe', RECIPES)
def test_heads_train_on_feature_maps_as_on_images(recipe, segmentor):
    model, losses = build(recipe, segmentor), []
    batch = dict(img=torch.randn(2, 3, 112, 112), img_metas=[{}, {}],
                 gt_semantic_seg=torch.randint(0, 150, (2, 1, 112, 112)))
    cached = {**batch, 'feats': frozen_features(model, batch)}
    del cached['img']
    for inputs in (batch, cached):
        torch.manual_seed(0)  # dropout
        losses.append(model.train_step(batch_for(model, inputs), None)['loss'])
    assert torch.equal(*losses)
    assert (batch_for(model, cached) is cached) == (segmentor == 'InternViTSegmentor')


def test_feature_maps_of_a_cached_dtype_are_float32_in_use():
    feats = [torch.randn(1, 4, 2, 2).bfloat16()]
    found, = frozen_features(torch.nn.Module(), dict(feats=feats))
    assert found.dtype == torch.float32 and torch.equal(found, feats[0].float())
