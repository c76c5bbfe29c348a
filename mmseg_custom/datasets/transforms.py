"""Pipeline steps: the resize and the padding of the published configs, and a check of labels.

H W pixels.
"""
import mmcv
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import Resize
from PIL import ExifTags, Image

from ..errors import InputError


@PIPELINES.register_module()
class SETR_Resize(Resize):  # noqa: N801 - the name that published configs use
    """mmseg's ``Resize`` that can keep the short side from falling below the crop.

    With ``setr_multi_scale`` and ``keep_ratio`` the short side becomes
    ``max(min(scale), crop_size[0])`` and the long side follows, however long it is. In multi-scale
    testing all scales below the crop are therefore the crop: ratios 0.5 and 0.75 repeat 1.0. Use
    ``Resize(keep_ratio=True)`` where small scales are wanted; the network takes them.

    Args:
        img_scale: (long, short) in pixels, or a list of them.
        multiscale_mode: 'range' or 'value': how to draw from a list.
        ratio_range: Range of a random factor on ``img_scale``.
        keep_ratio: Whether the aspect ratio is kept.
        crop_size: (H, W) in pixels; needed with ``setr_multi_scale``.
        setr_multi_scale: See above.
    """

    def __init__(self, img_scale=None, multiscale_mode: str = 'range', ratio_range=None,
                 keep_ratio: bool = True, crop_size: tuple[int, int] | None = None,
                 setr_multi_scale: bool = False):
        super().__init__(img_scale, multiscale_mode, ratio_range, keep_ratio)
        if setr_multi_scale and crop_size is None:
            raise InputError('SETR_Resize: setr_multi_scale=True needs crop_size=(H, W)')
        self.crop_size = crop_size
        self.setr_multi_scale = setr_multi_scale

    def _resize_img(self, results: dict) -> None:
        if self.keep_ratio and self.setr_multi_scale:
            height, width = results['img'].shape[:2]
            short = max(min(results['scale']), self.crop_size[0])
            if height > width:
                results['scale'] = (short * height / width, short)
            else:
                results['scale'] = (short, short * width / height)
        super()._resize_img(results)


@PIPELINES.register_module()
class PadShortSide:
    """Pads the image and the labels on the right and below to at least ``size`` x ``size``.

    Args:
        size: Side in pixels.
        pad_val: Value for the image.
        seg_pad_val: Value for the labels.
    """

    def __init__(self, size: int, pad_val: float = 0, seg_pad_val: int = 255):
        self.size = size
        self.pad_val = pad_val
        self.seg_pad_val = seg_pad_val

    def __call__(self, results: dict) -> dict:
        """Pads ``img`` and every one of ``seg_fields``, and sets ``pad_shape``."""
        height, width = results['img'].shape[:2]
        shape = (max(height, self.size), max(width, self.size))
        if shape != (height, width):
            results['img'] = mmcv.impad(results['img'], shape=shape, pad_val=self.pad_val)
            results['pad_shape'] = results['img'].shape
            for key in results.get('seg_fields', []):
                results[key] = mmcv.impad(results[key], shape=shape, pad_val=self.seg_pad_val)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, pad_val={self.pad_val})'


@PIPELINES.register_module()
class CheckLabels:
    """Refuses labels that are no class or not the image's, before they do harm.

    A label out of range would become an index error in a loss; a 16-bit label is cut to 8 bits on
    loading; and an image that its EXIF tag turns, as the decoder does, would be trained on labels
    of another orientation.

    Args:
        num_classes: K; labels are 0..K-1, and 255 where they are ignored.
        reduce_zero_label: Whether 1 was subtracted on loading; only for the wording.
    """

    def __init__(self, num_classes: int, reduce_zero_label: bool = True):
        self.num_classes = num_classes
        self.shift = 1 if reduce_zero_label else 0

    def __call__(self, results: dict) -> dict:
        """Checks ``gt_semantic_seg``, as loaded."""
        info = results['ann_info']['seg_map']
        prefix = results.get('seg_prefix')
        labels, path = results['gt_semantic_seg'], f'{prefix}/{info}' if prefix else info
        self.check(labels, path)
        if 'ori_shape' in results:
            check_size(results['ori_shape'][:2], labels.shape, results['filename'], path)
        return results

    def check(self, labels: np.ndarray, path: str) -> None:
        """Checks a label map (H, W).

        Raises:
            InputError: If it is no single channel of 8 bits, or holds anything else than classes
                and 255.
        """
        if labels.ndim != 2:
            raise InputError(f'label {path} has the shape {labels.shape}: expected one channel '
                             'of class numbers (H, W)')
        if png_bits(path) == 16:
            raise InputError(f'label {path} has 16 bits a pixel: expected 8, of class numbers; '
                             'convert the file')
        wrong = labels[(labels >= self.num_classes) & (labels != 255)]
        if wrong.size:
            raise InputError(
                f'label {int(wrong.max()) + self.shift} in {path}: expected '
                f'0..{self.num_classes - 1 + self.shift} ({wrong.size} pixels are out of range); '
                'correct the file or remove the sample')


def check_size(image: tuple[int, int], label: tuple[int, int], image_path: str,
               label_path: str) -> None:
    """Compares the sizes (H, W) of an image, turned as its EXIF tag says, and of its label.

    Raises:
        InputError: If they differ.
    """
    if tuple(image) == tuple(label):
        return
    turned = exif_orientation(image_path) >= 5 and tuple(image) == tuple(label)[::-1]
    why = (', because its EXIF tag asks for a turn, which loading makes: store it turned or '
           'remove the tag' if turned else ': replace one of them or remove the sample')
    raise InputError(f'image {image_path} has {image[0]} x {image[1]} pixels (height x width) and '
                     f'its label {label_path} {label[0]} x {label[1]}{why}')


def exif_orientation(path: str) -> int:
    """The EXIF orientation of an image, 1..8; 1 where it has none. 5..8 swap height and width."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except OSError:
        return 1


def png_bits(path: str) -> int | None:
    """Bits of a sample in a PNG file on the disk; None for any other file."""
    try:
        with open(path, 'rb') as file:
            head = file.read(25)
    except OSError:
        return None
    return head[24] if head.startswith(b'\x89PNG') and len(head) == 25 else None
