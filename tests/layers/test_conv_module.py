"""Our ConvModule beside mmcv's: the same names, values and results, bit by bit."""
import copy

import pytest
import torch
from mmcv import cnn
from torch import nn

from mmseg_custom.layers.conv_module import ACTIVATIONS, NORMS, ConvModule, is_of_torch

OF_NORM = {'GN': dict(num_groups=2), 'IN': dict(affine=True), 'LN': dict(eps=1e-3)}


def both(*sizes, **options) -> tuple[nn.Module, nn.Module]:
    """Ours and mmcv's, each built after the same seed."""
    found = []
    for kind in (ConvModule, cnn.ConvModule):
        torch.manual_seed(0)
        found.append((kind(*sizes, **copy.deepcopy(options)), torch.rand(3)))
    (ours, drawn), (theirs, other) = found
    assert torch.equal(drawn, other)  # as many random numbers were drawn
    return ours, theirs


@pytest.mark.parametrize('options', [
    {}, dict(act_cfg=None), dict(kernel_size=3, padding=2, dilation=2, inplace=False),
    dict(conv_cfg=dict(type='Conv2d', padding_mode='circular'), kernel_size=3, padding=1),
    *(dict(act_cfg=dict(type=name)) for name in ACTIVATIONS),
    dict(act_cfg=dict(type='LeakyReLU', negative_slope=0.3)),
    *(dict(norm_cfg=dict(type=name, **OF_NORM.get(name, {}))) for name in NORMS),
    dict(norm_cfg=dict(type='BN', requires_grad=False, momentum=0.3))])
def test_is_that_of_mmcv(options):
    ours, theirs = both(6, 4, options.pop('kernel_size', 1), **options)
    assert [name for name, _ in ours.named_children()] == [
        name for name, _ in theirs.named_children()]
    for (name, value), (other, expected) in zip(ours.state_dict().items(),
                                                theirs.state_dict().items(), strict=True):
        assert name == other and torch.equal(value, expected), name
    assert [p.requires_grad for p in ours.parameters()] == [
        p.requires_grad for p in theirs.parameters()]
    x = torch.randn(2, 6, 5, 4)
    for each in (ours.eval(), theirs.eval()):
        nn.init.constant_(each.conv.weight[0], 0.5)
    assert torch.equal(ours(x), theirs(x))
    ours.init_weights()
    assert ours.norm is getattr(ours, ours.norm_name or '', None)


def test_types_that_torch_does_not_have_are_told():
    known = dict(conv_cfg=None, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))
    assert is_of_torch(**known)
    for name, kind in (('conv_cfg', 'DCNv2'), ('norm_cfg', 'MMSyncBN'), ('act_cfg', 'HSwish')):
        assert not is_of_torch(**{**known, name: dict(type=kind)})


def test_groups_that_do_not_divide_are_refused_by_torch():
    with pytest.raises(ValueError, match='num_groups'):
        ConvModule(6, 4, 1, norm_cfg=dict(type='GN', num_groups=3))
