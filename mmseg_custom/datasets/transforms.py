"""Pipeline steps: resizing and padding of the published configs, and a check of labels.

H W pixels.
"""
import os.path as osp
from collections.abc import Iterable

import mmcv
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import Resize

from ..errors import InputError
from ..plugins import is_known
from .faults import UNREADABLE, check_loaded_label, check_pair, read_header
from .ground_truth import IGNORE_INDEX


@PIPELINES.register_module()
class SETR_Resize(Resize):  # noqa: N801 - the name that published configs use
    """mmseg's ``Resize`` that can keep the short side from falling below the crop.

    With ``setr_multi_scale`` and ``keep_ratio`` the short side becomes
    ``max(min(scale), crop_size[0])`` and the long side follows, however long it is. In multi-scale
    testing all scales below the crop are therefore the crop: ratios 0.5 and 0.75 repeat 1.0. Use
    ``Resize(keep_ratio=True)`` where small scales are wanted; the network takes them.

    Args:
        img_scale: (long, short) in pixels, or a list of them.
        multiscale_mode: 'range' to draw between two scales, 'value' to draw one of a list.
        ratio_range: Range of a random factor on ``img_scale``.
        keep_ratio: Whether the aspect ratio is kept.
        crop_size: (H, W) in pixels; needed with ``setr_multi_scale``.
        setr_multi_scale: Whether the short side is at least ``crop_size[0]``.
    """

    def __init__(self, img_scale=None, multiscale_mode: str = 'range', ratio_range=None,
                 keep_ratio: bool = True, crop_size: tuple[int, int] | None = None,
                 setr_multi_scale: bool = False):
        super().__init__(img_scale, multiscale_mode, ratio_range, keep_ratio)
        if setr_multi_scale and crop_size is None:
            raise InputError('SETR_Resize: setr_multi_scale=True needs crop_size=(H, W)')
        self.shortest = crop_size[0] if setr_multi_scale and crop_size else None

    def _resize_img(self, results: dict) -> None:
        if self.keep_ratio and self.shortest is not None:
            height, width = results['img'].shape[:2]
            short = max(min(results['scale']), self.shortest)
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
        pad_val: Value that the image is padded with.
        seg_pad_val: Value that the labels are padded with.
    """

    def __init__(self, size: int, pad_val: float = 0, seg_pad_val: int = IGNORE_INDEX):
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


def may_change_labels(steps: Iterable) -> bool:
    """Returns whether a step of a pipeline is a plugin's, which may number labels anew."""
    return not all(is_known(type(step)) for step in steps)


@PIPELINES.register_module()
class CheckLabels:
    """Refuses labels with a fault, before they do harm: see :mod:`.faults`.

    Args:
        num_classes: Number of classes K; labels are 0..K-1, and 255 where they are ignored.
        reduce_zero_label: Whether 1 was subtracted on loading; only for the wording.
        as_stored: See :func:`.faults.check_loaded_label`.
        ignore_index: Further label of pixels that are ignored.
        of_file: Number of classes that the files hold, for the wording; default: K.
    """

    def __init__(self, num_classes: int, reduce_zero_label: bool = True, as_stored: bool = True,
                 ignore_index: int = IGNORE_INDEX, of_file: int | None = None):
        self.num_classes = num_classes
        self.shift = 1 if reduce_zero_label else 0
        self.as_stored = as_stored
        self.ignore_index = ignore_index
        self.of_file = of_file

    def __call__(self, results: dict) -> dict:
        """Checks ``gt_semantic_seg``, as loaded."""
        path = results['ann_info']['seg_map']
        if results.get('seg_prefix'):
            path = osp.join(results['seg_prefix'], path)
        labels = results['gt_semantic_seg']
        self.check(labels, path)
        size = results.get('ori_shape', labels.shape)[:2]
        if size != labels.shape:
            found = check_pair(size, labels.shape, _orientation(results['filename']))
            raise InputError(f'image {results["filename"]} {found} (label: {path})')
        return results

    def check(self, labels: np.ndarray, path: str) -> None:
        """Checks a label map (H, W) that was loaded from ``path``.

        Raises:
            InputError: If it has a fault.
        """
        found = check_loaded_label(labels, path, self.num_classes, self.shift, self.as_stored,
                                   self.ignore_index, self.of_file)
        if found is not None:
            raise InputError(f'label {path} {found}')


def _orientation(path: str) -> int:
    try:
        with open(path, 'rb') as file:
            return read_header(file).orientation
    except UNREADABLE:  # not on a disk, or in a format that OpenCV alone knows
        return 1
