import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor

from mmseg_custom.compat.feature_batches import batch_for
from mmseg_custom.distributed import precision
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.models.frozen_features import frozen_features

LAST, LATE = dict(train_last=2), dict(adapt=dict(type='lora', r=2, blocks=[2, 3]))


@pytest.mark.parametrize('head, segmentor, tuning', [
    ('linear', 'InternViTSegmentor', dict(freeze_vit=True)),
    ('linear', 'EncoderDecoder', dict(freeze_vit=True)),
    ('upernet', 'InternViTSegmentor', dict(freeze_vit=True)),
    ('upernet', 'EncoderDecoder', dict(freeze_vit=True)),
    ('linear', 'InternViTSegmentor', LAST), ('upernet', 'EncoderDecoder', LAST),
    ('linear', 'EncoderDecoder', LATE), ('upernet', 'InternViTSegmentor', LATE)])
def test_trained_parts_train_on_feature_maps_as_on_images(head, segmentor, tuning, monkeypatch):
    """Bit for bit: what is cached in float32 is all that the trained part depends on.

    Whether the CPU computes in bfloat16, as with one kind of head, or on rounded weights.
    """
    monkeypatch.setattr(precision, 'is_fast_on_cpu', lambda _: head == 'upernet')
    model = build_segmentor(segmentor_config(
        head, segmentor, dict(norm_cfg=dict(type='SyncBN')), img_size=56, **tuning))
    apply_precision(model, torch.bfloat16, 'cpu')
    losses, gradients = [], []
    batch = dict(img=torch.randn(2, 3, 56, 56), img_metas=[{}, {}],
                 gt_semantic_seg=torch.randint(0, 5, (2, 1, 56, 56)))
    cached = {**batch, 'feats': frozen_features(model, batch)}
    del cached['img']
    for inputs in (batch, cached):
        torch.manual_seed(0)  # dropout
        losses.append(model.train_step(batch_for(model, inputs), None)['loss'])
        model.zero_grad()
        losses[-1].backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert torch.equal(*losses) and all(map(torch.equal, *gradients))
    blocks = {name.split('.')[2] for name, p in model.named_parameters()
              if p.grad is not None and name.startswith('backbone.blocks.')}
    assert blocks == (set() if 'freeze_vit' in tuning else {'2', '3'})
    assert (batch_for(model, cached) is cached) == (segmentor == 'InternViTSegmentor')


def test_feature_maps_of_a_cached_dtype_are_float32_in_use():
    feats = [torch.randn(1, 4, 2, 2).bfloat16()]
    found, = frozen_features(torch.nn.Module(), dict(feats=feats))
    assert found.dtype == torch.float32 and torch.equal(found, feats[0].float())
