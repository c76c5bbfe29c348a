"""Losses of mmseg's segmentors that stay on their device."""
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from torch import nn

from mmseg_custom.errors import InputError


class OwnSum(EncoderDecoder):
    """Adds up its losses in its own way."""

    @staticmethod
    def _parse_losses(losses):
        loss, values = BaseSegmentor._parse_losses(losses)
        return 2 * loss, values


def batch():
    return dict(img=torch.randn(2, 3, 28, 28), img_metas=[{}] * 2,
                gt_semantic_seg=torch.randint(5, (2, 1, 28, 28)))


@pytest.mark.parametrize('kind', ['EncoderDecoder', 'InternViTSegmentor'])
@pytest.mark.parametrize('head', ['linear', 'upernet'])
def test_are_those_that_mmseg_reads(kind, head):
    model = build_segmentor(segmentor_config(head, kind)).float()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0
    data = batch()
    read, left = model.train_step(data, None), model.train_step(data, None, defer_log=True)
    assert torch.equal(read['loss'], left['loss']) and read['num_samples'] == left['num_samples']
    assert read['log_vars'] == {name: value.item() for name, value in left['log_vars'].items()}
    assert not any(value.requires_grad for value in left['log_vars'].values())


def test_an_own_sum_is_kept():
    config = segmentor_config('linear')
    kinds = {'backbone': config.backbone, 'decode_head': config.decode_head,
             'test_cfg': config.test_cfg}
    model = OwnSum(**kinds).float()
    out = model.train_step(batch(), None, defer_log=True)
    assert out['loss'].item() == pytest.approx(2 * out['log_vars']['loss'])


def test_without_a_loss_nothing_is_trained():
    cfg = segmentor_config('linear', 'InternViTSegmentor')
    cfg.decode_head.loss_decode = dict(type='CrossEntropyLoss', loss_name='mine')
    model = build_segmentor(cfg).float()
    with pytest.raises(InputError, match='nothing is trained: no loss has a name with "loss"'):
        model.train_step(batch(), None, defer_log=True)
