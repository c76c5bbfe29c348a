"""Labels are compared with those of mmseg's own segmentor on the same weights."""
import itertools

import numpy as np
import pytest
import torch
from mmcv import ConfigDict
from mmseg.models import build_segmentor
from mmseg.models.segmentors import EncoderDecoder

from mmseg_custom.models import InternViTSegmentor

CLASSES = 20


def build(kind: str, head: dict | None = None, **test_cfg) -> torch.nn.Module:
    """A segmentor of seed 0, in float32."""
    torch.manual_seed(0)
    model = build_segmentor(ConfigDict(
        type=kind,
        backbone=dict(type='InternViT6B', embed_dim=32, depth=1, num_heads=2, img_size=56,
                      out_indices=[0], use_flash_attn=False),
        decode_head=dict(dict(type='FCNHead', in_channels=32, channels=32, num_convs=0,
                              concat_input=False, num_classes=CLASSES, dropout_ratio=0.0),
                         **(head or {})),
        test_cfg=dict(dict(mode='slide', crop_size=(56, 56), stride=(28, 42)), **test_cfg)))
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    return model.float().eval()


def pair(**options) -> tuple[EncoderDecoder, InternViTSegmentor]:
    """A segmentor of mmseg and one of ours, with the same weights."""
    return build('EncoderDecoder', **options), build('InternViTSegmentor', **options)


def sample(height: int, width: int, output: tuple[int, int] | None = None, pad: int = 0,
           flip: str | None = None) -> tuple[torch.Tensor, dict]:
    """An image (1, 3, H, W) of blobs, and its meta; ``pad`` pixels below and right are padding."""
    coarse = torch.randn(1, 3, height // 7, width // 7)
    image = torch.nn.functional.interpolate(coarse, (height, width), mode='bilinear')
    shape = (height - pad, width - pad, 3)
    return image, dict(img_shape=shape, pad_shape=(height, width, 3), flip=flip is not None,
                       ori_shape=(*(output or shape[:2]), 3), flip_direction=flip or 'horizontal')


def labels(model: torch.nn.Module, views: list, **options) -> np.ndarray:
    with torch.no_grad():
        return model(return_loss=False, img=[image for image, _ in views],
                     img_metas=[[meta] for _, meta in views], **options)[0]


def agreement(models: tuple, views: list, **options) -> float:
    ours, theirs = [labels(model, views, **options) for model in models[::-1]]
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert len(np.unique(theirs)) > 3
    return (ours == theirs).mean()


SIZES = [(56, 56), (56, 126), (84, 98), (70, 238), (28, 42), (28, 140), (126, 70)]
OUTPUTS = [None, (50, 70), (97, 131), (210, 180)]


@pytest.mark.parametrize('align_corners', [False, True])
def test_labels_are_those_of_mmseg(align_corners):
    models = pair(head=dict(align_corners=align_corners))
    for size, output in itertools.product(SIZES, OUTPUTS):
        assert agreement(models, [sample(*size, output)]) > 0.9999, (size, output)


@pytest.mark.parametrize('crop, stride', [
    ((56, 56), (56, 56)), ((56, 56), (14, 14)), ((42, 70), (30, 33)), ((28, 28), (9, 20))])
def test_windows_of_any_size_and_stride(crop, stride):
    models = pair(crop_size=crop, stride=stride)
    for size in [(70, 98), (56, 42), (28, 126)]:
        assert agreement(models, [sample(*size, (101, 77))]) > 0.9999, size


@pytest.mark.parametrize('flip', [None, 'horizontal', 'vertical'])
def test_padding_flips_and_network_resolution(flip):
    models = pair()
    view = sample(84, 112, (60, 90), pad=9, flip=flip)
    assert agreement(models, [view]) > 0.9999
    assert agreement(models, [view], rescale=False) > 0.9999
    assert labels(models[1], [view], rescale=False).shape == (84, 112)


def test_whole_images_at_multiples_of_the_patch():
    models = pair(mode='whole')
    for size in SIZES:
        assert agreement(models, [sample(*size, (83, 91), pad=3)]) > 0.9999, size


def test_views_are_averaged_as_mmseg_does():
    """Scales of 0.5 to 1.75 with flips, of an image longer than 4:1, also below the crop."""
    models = pair()
    views = [sample(height, width, (40, 190), flip=flip)
             for height, width in [(28, 140), (42, 210), (56, 266), (98, 462)]
             for flip in (None, 'horizontal')]
    assert agreement(models, views) > 0.9999
    assert agreement(pair(mode='whole'), views) > 0.9999


def test_one_output_channel_has_a_threshold():
    options = dict(out_channels=1, threshold=0.4,
                   loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    models = [build(kind, head={**options, 'num_classes': 2})
              for kind in ('EncoderDecoder', 'InternViTSegmentor')]
    views = [sample(84, 98, (71, 99)), sample(84, 98, (71, 99), flip='horizontal')]
    for count in (1, 2):
        ours, theirs = (labels(model, views[:count]) for model in models[::-1])
        assert 0.05 < theirs.mean() < 0.95 and (ours == theirs).mean() > 0.9999
