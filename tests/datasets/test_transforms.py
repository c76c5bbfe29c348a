import numpy as np
import pytest

from mmseg_custom.datasets.transforms import PadShortSide, SETR_Resize
from mmseg_custom.errors import InputError


def sample(height: int, width: int, scale=None) -> dict:
    results = dict(img=np.zeros((height, width, 3), np.uint8), seg_fields=['gt_semantic_seg'],
                   gt_semantic_seg=np.ones((height, width), np.uint8))
    return {**results, 'scale': scale} if scale else results


@pytest.mark.parametrize('size, scale, expected', [
    ((300, 400), (2016, 504), (504, 672)),
    ((400, 300), (2016, 504), (672, 504)),
    ((300, 400), (1008, 252), (504, 672)),  # a scale below the crop is the crop
    ((300, 400), (3024, 756), (756, 1008)),
    ((100, 900), (2016, 504), (504, 4536)),  # the long side follows, also beyond 4:1
])
def test_setr_resize_keeps_the_short_side_at_the_crop(size, scale, expected):
    step = SETR_Resize(keep_ratio=True, crop_size=(504, 504), setr_multi_scale=True)
    assert step(sample(*size, scale))['img'].shape[:2] == expected


def test_setr_resize_is_resize_without_its_option():
    results = SETR_Resize(img_scale=(200, 50))(sample(100, 300))
    assert results['img'].shape[:2] == results['gt_semantic_seg'].shape == (50, 150)


def test_setr_resize_needs_a_crop():
    with pytest.raises(InputError, match='needs crop_size'):
        SETR_Resize(setr_multi_scale=True)


@pytest.mark.parametrize('size, expected', [((20, 50), (32, 50)), ((40, 33), (40, 33))])
def test_pad_short_side(size, expected):
    results = PadShortSide(32)(sample(*size))
    assert results['img'].shape[:2] == results['gt_semantic_seg'].shape == expected
    assert (results['gt_semantic_seg'][size[0]:] == 255).all()
