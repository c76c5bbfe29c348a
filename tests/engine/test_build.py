"""Segmentors are built from configs of this package and of others."""
import pytest
from mmcv import Config

from mmseg_custom.engine.build import build_network, init_heads

FAST_SCNN = dict(
    type='EncoderDecoder', pretrained=None,
    backbone=dict(type='FastSCNN', norm_cfg=dict(type='BN')),
    decode_head=dict(type='DepthwiseSeparableFCNHead', in_channels=128, channels=8, num_classes=2,
                     in_index=-1, concat_input=False, norm_cfg=dict(type='BN')))


@pytest.mark.parametrize('pretrained', [False, True])
def test_backbones_without_the_option_pretrained(pretrained):
    cfg = Config(dict(model=FAST_SCNN))
    assert build_network(cfg, pretrained=pretrained).decode_head.num_classes == 2
    assert 'pretrained' not in cfg.model.backbone


def test_all_of_several_auxiliary_heads_are_initialised():
    head = {**FAST_SCNN['decode_head'], 'num_classes': 9}
    model = build_network(Config(dict(model={**FAST_SCNN, 'auxiliary_head': [head, head]})))
    init_heads(model)
    for each in (model.decode_head, *model.auxiliary_head):
        assert not each.conv_seg.bias.any() and 0.005 < each.conv_seg.weight.std() < 0.015
