"""Our heads beside mmseg's own: names, initial values, results and losses, bit by bit."""
import copy
import warnings

import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmcv.runner import wrap_fp16_model
from mmseg.models import build_head, build_segmentor, decode_heads
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from mmseg_custom.errors import InputError
from mmseg_custom.models.decode_heads.decode_head import DecodeHead
from mmseg_custom.models.decode_heads.fcn_head import FCNHead
from mmseg_custom.models.decode_heads.uper_head import UPerHead

COMMON = dict(channels=8, num_classes=5, dropout_ratio=0.0)
SEVERAL = dict(in_channels=[6, 5, 4, 3], in_index=[0, 1, 2, 3])
BN, GN = dict(type='BN'), dict(type='GN', num_groups=2)
LOSS = dict(type='CrossEntropyLoss')
HEADS = {
    'fcn': (FCNHead, dict(in_channels=3, in_index=3, norm_cfg=BN)),
    'fcn of all maps': (FCNHead, dict(SEVERAL, input_transform='resize_concat', num_convs=1,
                                      norm_cfg=GN, kernel_size=1, align_corners=True)),
    'fcn, dilated': (FCNHead, dict(in_channels=6, in_index=0, dilation=2, concat_input=False,
                                   act_cfg=dict(type='LeakyReLU', negative_slope=0.2))),
    'linear': (FCNHead, dict(in_channels=8, num_convs=0, concat_input=False, channels=8)),
    'upernet': (UPerHead, dict(SEVERAL, norm_cfg=dict(type='SyncBN', requires_grad=True))),
    'upernet, frozen norms': (UPerHead, dict(SEVERAL, pool_scales=(1, 2), act_cfg=None,
                                             norm_cfg=dict(BN, requires_grad=False, eps=1e-3))),
    'upernet, of layers of mmcv': (UPerHead, dict(SEVERAL, act_cfg=dict(type='HSwish'),
                                                  conv_cfg=dict(type='ConvWS'))),
    'another start': (FCNHead, dict(in_channels=3, in_index=3, init_cfg=[
        dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', layer='BatchNorm2d', val=2)],
        norm_cfg=BN)),
}


def both(name: str, **changes) -> tuple[nn.Module, nn.Module]:
    """Our head and mmseg's, each built and initialised after the same seed."""
    kind, options = HEADS[name]
    found = []
    for each in (kind, getattr(decode_heads, kind.__name__)):
        torch.manual_seed(0)
        head = each(**copy.deepcopy({**COMMON, **options, **changes}))
        head.init_weights()
        found.append((head, torch.rand(3)))
    (ours, drawn), (theirs, other) = found
    assert torch.equal(drawn, other)  # as many random numbers were drawn
    return ours, theirs


def maps_of(head: nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(1)
    widths = SEVERAL['in_channels'] if not isinstance(head.in_channels, int) or (
        head.in_channels == 18) else [head.in_channels] * 4
    return [torch.randn(2, channels, *size) for channels, size in zip(
        widths, [(28, 36), (14, 18), (7, 9), (4, 5)])]


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('name', HEADS)
def test_are_those_of_mmseg(name, training):
    ours, theirs = both(name)
    for mine, other in ((ours.named_parameters(), theirs.named_parameters()),
                        (ours.named_buffers(), theirs.named_buffers())):
        for (own_name, value), (their_name, expected) in zip(mine, other, strict=True):
            assert own_name == their_name and torch.equal(value, expected), own_name
            assert value.requires_grad == expected.requires_grad
    labels = torch.randint(5, (2, 1, 56, 72))
    metas = [{}, {}]
    found = [head.train(training).forward_train(maps_of(head), metas, labels, None) if training
             else {'logits': head.eval().forward_test(maps_of(head), metas, None)}
             for head in (ours, theirs)]
    if not training:
        assert torch.equal(found[0]['logits'], found[1]['logits'])
        return
    # In strips, the cross-entropy is added up in another order, and nearly equal logits may switch.
    assert found[0].keys() == found[1].keys()
    assert found[0]['loss_ce'].item() == pytest.approx(found[1]['loss_ce'].item(), rel=1e-6)
    assert found[0]['acc_seg'].item() == pytest.approx(found[1]['acc_seg'].item(), abs=1)
    for each in found:
        each['loss_ce'].backward()
    for (key, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6, msg=key)


def test_a_segmentor_of_mmseg_starts_with_the_same_values_at_a_seed():
    """Which sets some weights once when a head is built, and once more in ``init_weights``."""
    states = []
    for kinds in ((FCNHead, UPerHead), (decode_heads.FCNHead, decode_heads.UPerHead)):
        config = segmentor_config('upernet', 'EncoderDecoder', dict(norm_cfg=BN))
        config.auxiliary_head.update(type=kinds[0], concat_input=True)
        config.decode_head.type = kinds[1]
        torch.manual_seed(0)
        model = build_segmentor(config)
        model.init_weights()
        states.append({**model.state_dict(), 'next draw': torch.rand(3)})
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize('loss', [
    dict(LOSS, use_sigmoid=True), dict(LOSS, reduction='sum'),
    [LOSS, dict(type='DiceLoss'), dict(LOSS, loss_weight=0.5)], [dict(type='LovaszLoss',
                                                                      reduction='none')]])
@pytest.mark.parametrize('options', [
    {}, dict(ignore_index=0, align_corners=True),
    dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=50))])
def test_losses_at_pixels_are_those_of_mmseg_to_the_bit(loss, options):
    head = FCNHead(**{**COMMON, **HEADS['fcn'][1], **options}, loss_decode=loss)
    logits = torch.randn(2, 5, 7, 9, requires_grad=True)
    labels = torch.randint(5, (2, 1, 28, 36))
    labels[:, :, :9] = 255 if head.ignore_index else 0
    found, expected = head.losses(logits, labels), BaseDecodeHead.losses(head, logits, labels)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    of_ours, of_theirs = (torch.autograd.grad(sum(
        value for name, value in each.items() if 'loss' in name), logits)[0]
        for each in (found, expected))
    assert torch.equal(of_ours, of_theirs)


def test_losses_are_computed_in_float32_under_mixed_precision():
    head = FCNHead(**COMMON, **HEADS['fcn'][1], loss_decode=[LOSS])
    logits, labels = torch.randn(2, 5, 7, 9), torch.randint(5, (2, 1, 28, 36))
    expected = head.losses(logits.half().float(), labels)['loss_ce']
    wrap_fp16_model(head)
    with torch.autocast('cpu', torch.bfloat16):
        found = head.losses(logits.half(), labels)['loss_ce']
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_one_channel_has_a_threshold_and_no_label_need_be_ignored():
    with pytest.warns(UserWarning, match='out_channels=1'):
        FCNHead(**{**COMMON, 'num_classes': 2}, in_channels=3)
    with pytest.warns(UserWarning, match='without a threshold: 0.3'):
        head = FCNHead(**{**COMMON, 'num_classes': 2}, in_channels=3, out_channels=1,
                       ignore_index=None, loss_decode=dict(LOSS, use_sigmoid=True))
    assert head.threshold == 0.3 and head.conv_seg.out_channels == head.out_channels == 1
    found = head.losses(torch.full((1, 1, 2, 2), 5.), torch.ones(1, 1, 4, 4, dtype=torch.long))
    assert found['acc_seg'] == 100


@pytest.mark.parametrize('options, message', [
    (dict(in_channels=[3]), r'in_channels=\[3\], in_index=-1.*multiple_select'),
    (dict(in_channels=3, in_index=[0]), r'expected one number each'),
    (dict(in_channels=[3, 3], in_index=[0], input_transform='resize_concat'), 'of as many numbers'),
    (dict(in_channels=[3], in_index=[0], input_transform='sum'), "expected 'resize_concat'"),
    (dict(in_channels=3, out_channels=4), 'out_channels=4 with num_classes=5: expected 5, or 1'),
    (dict(in_channels=3, loss_decode='CE'), "loss_decode='CE': expected dict"),
    (dict(in_channels=3, num_convs=0), 'channels=8 with num_convs=0.*in_channels=3'),
    (dict(in_channels=3, dilation=0), 'num_convs=2, dilation=0: expected 0 or more')])
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        FCNHead(**COMMON, **options)


def test_without_a_loss_nothing_is_trained():
    head = FCNHead(**COMMON, in_channels=3, loss_decode=None)
    with pytest.raises(InputError, match='FCNHead: loss_decode=None: expected a loss'):
        head.losses(torch.randn(1, 5, 2, 2), torch.zeros(1, 1, 4, 4, dtype=torch.long))


def test_weights_are_initialised_once():
    head = FCNHead(**COMMON, in_channels=3)
    head.init_weights()
    before = copy.deepcopy(head.state_dict())
    with pytest.warns(UserWarning, match='FCNHead: its weights are initialised already'):
        head.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_plugins_take_them_for_heads_of_mmseg():
    head = build_head(dict(COMMON, type='UPerHead', **SEVERAL))
    assert type(head) is UPerHead and isinstance(head, BaseDecodeHead)
    assert issubclass(FCNHead, decode_heads.FCNHead)
    assert not issubclass(FCNHead, decode_heads.STDCHead)
    assert not isinstance(build_head(dict(COMMON, type='PSPHead', in_channels=3)), DecodeHead)


def test_a_head_of_a_plugin_inherits_and_has_the_loss_in_strips():
    class Halved(UPerHead):
        def psp_forward(self, inputs):
            x = inputs[-1]
            return self.bottleneck(torch.cat([x, *self.psp_modules(x)], 1)) / 2

    head = Halved(**COMMON, **SEVERAL, norm_cfg=BN)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = head.forward_train(maps_of(head), [], torch.zeros(2, 1, 56, 72, dtype=torch.long),
                                   None)
    assert set(found) == {'loss_ce', 'acc_seg'}
