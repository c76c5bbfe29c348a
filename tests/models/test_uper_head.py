"""Our UPerNet head is mmseg's, bit for bit on the CPU."""
import pytest
import torch
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead

from mmseg_custom.models.decode_heads.uper_head import UPerHead

OPTIONS = dict(in_channels=[6, 5, 4, 3], in_index=[0, 1, 2, 3], channels=8, num_classes=5,
               dropout_ratio=0.0, norm_cfg=dict(type='BN'), pool_scales=(1, 2, 3, 6))


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_is_that_of_mmseg(align_corners, training):
    theirs = MMSegUPerHead(**OPTIONS, align_corners=align_corners).train(training)
    ours = UPerHead(**OPTIONS, align_corners=align_corners).train(training)
    ours.load_state_dict(theirs.state_dict())
    maps = [torch.randn(2, channels, *size) for channels, size in zip(
        OPTIONS['in_channels'], [(28, 36), (14, 18), (7, 9), (3, 4)])]
    found, expected = ours(maps), theirs(maps)
    assert torch.equal(found, expected)
    for output in (found, expected):
        output.square().sum().backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad), name
