"""Inference in windows without mmseg's segmentor, against the one that has it."""
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor
from torch import nn

from mmseg_custom.errors import InputError
from mmseg_custom.models.segmentors.image_views import ImageView, views_of_batch
from mmseg_custom.models.segmentors.window_inference import WindowInference

WINDOWS = dict(mode='slide', crop_size=(56, 56), stride=(28, 42))


class Segmentor(WindowInference, nn.Module):
    """The parts of a segmentor of mmseg, without it."""

    def __init__(self, parts: nn.Module, test_cfg: dict):
        super().__init__()
        self.backbone, self.decode_head = parts.backbone, parts.decode_head
        self.align_corners, self.out_channels = parts.align_corners, parts.out_channels
        self.test_cfg = test_cfg


@pytest.fixture(scope='module')
def parts() -> nn.Module:
    torch.manual_seed(0)
    return build_segmentor(segmentor_config('linear', 'InternViTSegmentor', test_cfg=dict(WINDOWS),
                                            depth=1, img_size=56)).eval()


def metas(*sizes: tuple[int, int], flip: str | None = None) -> list[dict]:
    return [dict(img_shape=(height - 5, width, 3), ori_shape=(2 * height, width + 9, 3),
                 flip=flip is not None, flip_direction=flip) for height, width in sizes]


@pytest.mark.parametrize('test_cfg', [WINDOWS, dict(mode='whole'), dict(WINDOWS, window_batch=3)],
                         ids=['slide', 'whole', 'batches of three'])
def test_labels_are_those_of_mmseg_s_segmentor_to_the_bit(parts, test_cfg):
    sizes = [(70, 98), (56, 126)]
    images = [torch.randn(3, *size) for size in sizes]
    views = [images, [image.flip(2) for image in images]]
    of_views = [metas(*sizes), metas(*sizes, flip='horizontal')]
    parts.test_cfg.clear()
    parts.test_cfg.update(test_cfg)
    with torch.no_grad():
        expected = parts(return_loss=False, img=views, img_metas=of_views, on_device=True)
        found = Segmentor(parts, test_cfg).label_maps([
            [ImageView(image, (2 * height, width + 9), (height - 5, width)),
             ImageView(image.flip(2), (2 * height, width + 9), (height - 5, width), 'horizontal')]
            for image, (height, width) in zip(images, sizes)])
    assert all(map(torch.equal, found, expected)) and found[0].shape == (140, 107)
    assert len(found[0].unique()) > 2


def test_another_way_to_run_the_network_needs_no_backbone(parts):
    class Exported(WindowInference):
        test_cfg, align_corners, out_channels = WINDOWS, False, 7
        decode_head = None

        def window_logits(self, windows, metas, lockstep=False):
            return windows.new_zeros(len(windows), 7, 4, 4) + torch.arange(7).view(1, 7, 1, 1)

    labels, = Exported().label_maps([[ImageView(torch.zeros(3, 60, 90), (60, 90))]])
    assert labels.shape == (60, 90) and labels.unique().tolist() == [6]


def test_what_cannot_be_labelled_is_refused(parts):
    image = torch.zeros(3, 56, 56)
    with pytest.raises(InputError, match="test_cfg.mode='tiles'"):
        Segmentor(parts, dict(mode='tiles')).label_maps([[ImageView(image, (56, 56))]])
    with pytest.raises(ValueError, match='flip_direction=.diagonal.'):
        Segmentor(parts, WINDOWS).label_maps(
            [[ImageView(image, (56, 56), flip_direction='diagonal')]])
    with pytest.raises(ValueError, match='2 views of images, but 1 of their metas'):
        views_of_batch([[image], [image]], [metas((56, 56))])
