import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor

from mmseg_custom.compat.feature_batches import batch_for
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.models.frozen_features import frozen_features


@pytest.mark.parametrize('segmentor', ['InternViTSegmentor', 'EncoderDecoder'])
@pytest.mark.parametrize('head', ['linear', 'upernet'])
def test_heads_train_on_feature_maps_as_on_images(head, segmentor):
    model = build_segmentor(segmentor_config(
        head, segmentor, dict(norm_cfg=dict(type='SyncBN')), freeze_vit=True, img_size=56))
    apply_precision(model, torch.bfloat16, 'cpu')
    losses = []
    batch = dict(img=torch.randn(2, 3, 56, 56), img_metas=[{}, {}],
                 gt_semantic_seg=torch.randint(0, 5, (2, 1, 56, 56)))
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
