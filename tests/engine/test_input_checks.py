"""Heads are compared with the feature maps that they are given, before anything is built."""
import pytest
from mmcv import Config

from mmseg_custom.engine.input_checks import check_inputs
from mmseg_custom.errors import InputError


def check(backbone: dict, **head) -> None:
    check_inputs(Config(dict(model=dict(backbone=backbone, decode_head=head))))


def test_inputs_of_other_backbones_are_left_alone():
    check(dict(type='ResNet'), type='FCNHead', in_channels=7, in_index=9)


def test_a_head_reads_the_maps_that_its_class_says():
    backbone = dict(type='InternViT6B', embed_dim=32, out_indices=[0, 1, 2, 3])
    check(backbone, type='FCNHead', in_channels=32)
    check(backbone, type='PlainMaskHead', in_channels=[32] * 4)
    check(backbone, type='PlainMaskHead', in_channels=32, blocks='backbone')
    with pytest.raises(InputError, match='in_channels=32 and in_index=.0, 1, 2, 3.: expected as m'):
        check(backbone, type='PlainMaskHead', in_channels=32)
    with pytest.raises(InputError, match='in_index=.0, 1, 2, 3.: the backbone gives 1 feature map'):
        check(dict(backbone, out_indices=[3]), type='PlainMaskHead', in_channels=[32] * 4)
