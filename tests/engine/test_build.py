"""Segmentors are built from configs of this package and of others."""
import pytest
from mmcv import Config

from mmseg_custom.engine.build import build_network

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
