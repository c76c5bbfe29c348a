"""Labels are compared with those of mmseg's own segmentor on the same weights."""
import itertools

import numpy as np
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor
from mmseg.models.segmentors import EncoderDecoder

from mmseg_custom.errors import InputError
from mmseg_custom.models import InternViTSegmentor
from mmseg_custom.models.segmentors import batching, windows

CLASSES = 20


def build(kind: str, head: dict | None = None, **test_cfg) -> torch.nn.Module:
    """A segmentor of seed 0, in float32."""
    torch.manual_seed(0)
    model = build_segmentor(segmentor_config(
        'linear', kind, {'num_classes': CLASSES, 'dropout_ratio': 0.0, **(head or {})},
        dict(dict(mode='slide', crop_size=(56, 56), stride=(28, 42)), **test_cfg),
        depth=1, img_size=56, use_flash_attn=False))
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


class Calls:
    """Counts the runs of a segmentor's network, and the windows in each."""

    def __init__(self, model: torch.nn.Module):
        self.sizes = []
        model.backbone.register_forward_pre_hook(lambda _, args: self.sizes.append(len(args[0])))


def test_batches_do_not_change_a_label():
    """Windows of views of three images of different sizes, in batches of any number."""
    views = [[sample(height, width, (61, 83), flip=flip) for flip in (None, 'horizontal')]
             for height, width in [(84, 98), (56, 126), (70, 238)]]
    model = build('InternViTSegmentor')
    alone = [labels(model, view) for view in views]
    count = 2 * (2 * 2 + 1 * 3 + 2 * 6)
    for number in (1, 3, 64, None):
        model.test_cfg.window_batch = number
        calls = Calls(model)
        with torch.no_grad():
            together = model(
                return_loss=False, img=[[v[a][0][0] for v in views] for a in (0, 1)],
                img_metas=[[v[a][1] for v in views] for a in (0, 1)])
        for one, other in zip(alone, together):
            assert np.array_equal(one, other)
        assert sum(calls.sizes) == count
        if number:
            assert len(calls.sizes) == -(-count // number) and max(calls.sizes) <= number


def test_the_free_memory_decides(monkeypatch):
    model = build('InternViTSegmentor')
    view = sample(56, 280, (61, 83))
    monkeypatch.setattr(batching, 'free_bytes', lambda device: 2**40)
    calls = Calls(model)
    expected = labels(model, [view])
    assert calls.sizes == [1, 1, 5]
    model = build('InternViTSegmentor')
    monkeypatch.setattr(batching, 'free_bytes', lambda device: 0)
    calls = Calls(model)
    assert np.array_equal(labels(model, [view]), expected)
    assert calls.sizes == [1] * 7


def test_the_number_of_batches_is_known_before(monkeypatch):
    """But for windows whose memory is not measured yet: two of each shape run alone."""
    monkeypatch.setattr(batching, 'free_bytes', lambda device: 2**40)
    batch, large, small = batching.WindowBatch(), (56, 56), (28, 28)
    batch.ask(4)
    assert batch.batches({large: 9, small: 1}) == (4, False)
    batch.ask(None)
    assert batch.batches({large: 2, small: 1}) == (3, False)
    assert batch.batches({large: 9, small: 1}) == (2, True)
    for _ in range(2):
        with batch.measured(large, torch.device('cpu')):
            pass
    size = batch.size(large)
    assert size > 1 and batch.batches({large: size + 1, small: 3}) == (4, True)
    assert batch.batches({}) == (0, False)


def test_a_gpu_that_is_full_gets_half(monkeypatch):
    model = build('InternViTSegmentor', window_batch=4)
    view = sample(56, 280, (61, 83))
    expected = labels(model, [view])
    logits, sizes = model.window_logits, []

    def limited(windows, *args):
        sizes.append(len(windows))
        if len(windows) > 2:
            raise torch.cuda.OutOfMemoryError
        return logits(windows, *args)

    monkeypatch.setattr(model, 'window_logits', limited)
    assert np.array_equal(labels(model, [view]), expected)
    assert sizes == [4, 2, 2, 2, 1]


def test_the_tiles_of_a_gpu_give_the_same_labels(monkeypatch):
    model = build('InternViTSegmentor')
    views = [sample(84, 98, (150, 171)), sample(56, 70, (150, 171), flip='vertical')]
    expected = [labels(model, views[:count]) for count in (1, 2)]
    monkeypatch.setattr(windows, 'first_argmax_', lambda values: values.argmax(0))
    monkeypatch.setitem(windows.TILE_PIXELS, 'cuda', 5000)
    tiles = windows._tiles
    monkeypatch.setattr(windows, '_tiles', lambda view, device: tiles(view, 'cuda'))
    for count in (1, 2):
        assert np.array_equal(labels(model, views[:count]), expected[count - 1])


def test_logits_that_are_no_numbers_have_some_label():
    logits, eye = torch.full((3, 4, 4), torch.nan), torch.eye(4)
    views = [windows.View(logits, eye, eye, 1.)]
    for count in (1, 2):
        assert windows.labels_of(views * count).shape == (4, 4)


@pytest.mark.parametrize('options, message', [
    (dict(window_batch=0), 'window_batch=0.*1 or more'),
    (dict(window_batch='many'), "window_batch='many'"),
    (dict(stride=(57, 57)), r'stride=\(57, 57\) is more than the crop_size \(56, 56\)'),
    (dict(crop_size=56), r'crop_size=56: expected \(height, width\)'),
    (dict(mode='tile'), "mode='tile': expected 'slide' or 'whole'"),
])
def test_wrong_test_cfg(options, message):
    model = build('InternViTSegmentor', **options)
    with pytest.raises(InputError, match=message):
        labels(model, [sample(56, 70)])


def test_training_is_that_of_mmseg():
    ours, theirs = (model.train() for model in pair())
    image, meta = sample(56, 56)
    labels = torch.randint(CLASSES, (1, 1, 56, 56))
    batch = dict(img=image, img_metas=[meta], gt_semantic_seg=labels)
    assert torch.equal(ours(**batch)['decode.loss_ce'], theirs(**batch)['decode.loss_ce'])
    assert list(ours.state_dict()) == list(theirs.state_dict())
