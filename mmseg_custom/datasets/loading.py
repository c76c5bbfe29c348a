"""The steps of a training pipeline that take the time, faster and with the same result.

H W pixels. :func:`accelerate` puts them in the place of mmseg's own in a data set that is built;
configs keep the names they have. Each draws the same random numbers in the same order and returns
the same values, bit by bit (tests hold this), so that a run is the same with and without them.

    LoadAnnotations          a table in the place of four passes; OpenCV decodes grey PNGs
    RandomCrop               counts classes by a histogram, where numpy sorts all pixels
    PhotoMetricDistortion    one table a step, where mmseg goes through float32 and int64
    Normalize                a table of 3 x 256 values, and at once in the order that torch wants
    Pad                      no copy where nothing is padded

``LoadImageReduced`` is no such step: its pixels differ, and a config has to ask for it.
"""
import os.path as osp

import cv2
import mmcv
import numpy as np
from mmcv.utils import print_log
from mmseg.datasets import CustomDataset
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import (
    LoadAnnotations,
    LoadImageFromFile,
    Normalize,
    Pad,
    PhotoMetricDistortion,
    RandomCrop,
    Resize,
)
from mmseg.utils import get_root_logger
from numpy import random

from ..errors import InputError

VALUES = np.arange(256, dtype=np.uint8)
GREY_PNG = b'\x08\x00'  # bit depth and colour type in a PNG's header
REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
           8: cv2.IMREAD_REDUCED_COLOR_8}


class FastLoadAnnotations(LoadAnnotations):
    """mmseg's ``LoadAnnotations``."""

    def __call__(self, results: dict) -> dict:
        """Reads ``gt_semantic_seg`` (H, W)."""
        if results.get('label_map') is not None or self.imdecode_backend != 'pillow':
            return super().__call__(results)
        if self.file_client is None:
            self.file_client = mmcv.FileClient(**self.file_client_args)
        name = results['ann_info']['seg_map']
        if results.get('seg_prefix') is not None:
            name = osp.join(results['seg_prefix'], name)
        labels = _decode_labels(self.file_client.get(name))
        if self.reduce_zero_label and labels.dtype == np.uint8:
            labels = cv2.LUT(labels, _REDUCED_LABELS)
        results['gt_semantic_seg'] = labels
        results['seg_fields'].append('gt_semantic_seg')
        return results


class FastRandomCrop(RandomCrop):
    """mmseg's ``RandomCrop``."""

    def __call__(self, results: dict) -> dict:
        """Crops the image and the labels to ``crop_size``."""
        image = results['img']
        box = self.get_crop_bbox(image)
        if self.cat_max_ratio < 1.:
            for _ in range(10):
                if self._is_varied(self.crop(results['gt_semantic_seg'], box)):
                    break
                box = self.get_crop_bbox(image)
        results['img'] = self.crop(image, box)
        results['img_shape'] = results['img'].shape
        for key in results.get('seg_fields', []):
            results[key] = self.crop(results[key], box)
        return results

    def _is_varied(self, labels: np.ndarray) -> bool:
        counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
        counts[self.ignore_index] = 0
        return np.count_nonzero(counts) > 1 and (
            counts.max() / counts.sum(dtype=np.float64) < self.cat_max_ratio)


class FastPhotoMetricDistortion(PhotoMetricDistortion):
    """mmseg's ``PhotoMetricDistortion``; what it does to a value does not depend on the pixel."""

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Multiplies, adds and clips uint8 values."""
        return cv2.LUT(img, super().convert(VALUES, alpha, beta))

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Scales the saturation, one time in two."""
        if not random.randint(2):
            return img
        alpha = random.uniform(self.saturation_lower, self.saturation_upper)
        return _on_hsv(img, 1, super().convert(VALUES, alpha))

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Turns the hue, one time in two."""
        if not random.randint(2):
            return img
        turn = random.randint(-self.hue_delta, self.hue_delta)
        return _on_hsv(img, 0, ((VALUES.astype(int) + turn) % 180).astype(np.uint8))


class FastNormalize(Normalize):
    """mmseg's ``Normalize`` of uint8 images; the channels come to lie one behind the other."""

    def __call__(self, results: dict) -> dict:
        """Normalises ``img`` (H, W, 3)."""
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            return super().__call__(results)
        planes = np.empty((3, *image.shape[:2]), np.float32)
        for channel, table in enumerate(self._tables()):
            source = 2 - channel if self.to_rgb else channel
            planes[channel] = cv2.LUT(cv2.extractChannel(image, source), table)
        results['img'] = planes.transpose(1, 2, 0)
        results['img_norm_cfg'] = dict(mean=self.mean, std=self.std, to_rgb=self.to_rgb)
        return results

    def _tables(self) -> np.ndarray:
        """What each of 256 values becomes in each channel of the result: (3, 256)."""
        if not hasattr(self, '_kept'):
            ramp = np.repeat(VALUES[:, None, None], 3, axis=2)  # (256, 1, 3)
            self._kept = np.ascontiguousarray(mmcv.imnormalize(
                ramp, self.mean, self.std, self.to_rgb)[:, 0].T)
        return self._kept


class FastPad(Pad):
    """mmseg's ``Pad``, without the copy where there is nothing to pad."""

    def __call__(self, results: dict) -> dict:
        """Pads the image and the labels to ``size``."""
        arrays = [results['img'], *(results[key] for key in results.get('seg_fields', []))]
        if self.size is None or any(array.shape[:2] != tuple(self.size) for array in arrays):
            return super().__call__(results)
        results.update(pad_shape=results['img'].shape, pad_fixed_size=self.size,
                       pad_size_divisor=self.size_divisor)
        return results


FASTER = {LoadAnnotations: FastLoadAnnotations, RandomCrop: FastRandomCrop,
          PhotoMetricDistortion: FastPhotoMetricDistortion, Normalize: FastNormalize,
          Pad: FastPad}


def accelerate(dataset: CustomDataset) -> CustomDataset:
    """Puts the faster steps into a data set that is built; what it returns stays the same.

    Only mmseg's own classes are replaced, not what users derived from them.
    """
    while not hasattr(dataset, 'pipeline') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    count = 0
    for step in steps:
        faster = FASTER.get(type(step))
        if faster is not None:
            step.__class__ = faster  # it has no state of its own
            count += 1
    print_log(f'loading: {count} of {len(steps)} steps in their faster form', get_root_logger())
    return dataset


@PIPELINES.register_module()
class LoadImageReduced(LoadImageFromFile):
    """Loads and resizes an image, and decodes large JPEGs at 1/2, 1/4 or 1/8 of their size.

    Takes the places of ``LoadImageFromFile`` and ``Resize``: draws the scale as ``Resize`` does,
    decodes at the smallest size that is not below it (libjpeg drops frequencies, which is fast),
    and resizes the rest of the way. ``ResizeLabels`` has to come after ``LoadAnnotations``. Where
    nothing is reduced, the result is that of the two steps; elsewhere pixels differ, since what
    bilinear resizing would alias is left out: docs/data_loading.md has figures.

    Args:
        img_scale: (long, short) in pixels, as in ``Resize``.
        ratio_range: Of a random factor on it; None for none.
        **kwargs: Of ``LoadImageFromFile``.
    """

    def __init__(self, img_scale: tuple[int, int], ratio_range: tuple[float, float] | None = None,
                 **kwargs):
        super().__init__(**kwargs)
        self.resize = Resize(img_scale=tuple(img_scale), ratio_range=ratio_range)

    def __call__(self, results: dict) -> dict:
        """Sets ``img`` (H, W, 3) and what the two steps set beside it."""
        if self.file_client is None:
            self.file_client = mmcv.FileClient(**self.file_client_args)
        name = results['img_info']['filename']
        path = name if results.get('img_prefix') is None else osp.join(results['img_prefix'], name)
        data = np.frombuffer(self.file_client.get(path), np.uint8)
        self.resize._random_scale(results)
        image, size = _decode_for(data, results['scale'], path)
        target = mmcv.rescale_size(size, results['scale'])  # (W, H)
        image = mmcv.imresize(image, target)
        factor = np.array([target[0] / size[0], target[1] / size[1]] * 2, np.float32)
        results.update(
            filename=path, ori_filename=name, img=image, img_shape=image.shape,
            ori_shape=(size[1], size[0], 3), pad_shape=image.shape, scale_factor=factor,
            keep_ratio=True, img_norm_cfg=dict(
                mean=np.zeros(3, np.float32), std=np.ones(3, np.float32), to_rgb=False))
        return results


@PIPELINES.register_module()
class ResizeLabels:
    """Resizes the labels to the image, to the nearest: the other half of ``LoadImageReduced``."""

    def __call__(self, results: dict) -> dict:
        """Resizes all of ``seg_fields`` (H, W)."""
        height, width = results['img'].shape[:2]
        for key in results.get('seg_fields', []):
            results[key] = mmcv.imresize(results[key], (width, height), interpolation='nearest')
        return results


def _decode_for(data: np.ndarray, scale: tuple[int, int],
                path: str) -> tuple[np.ndarray, tuple[int, int]]:
    """(image, (W, H) of the whole one): reduced as far as ``scale`` allows."""
    size = _jpeg_size(data)
    if size is not None:
        target = mmcv.rescale_size(size, scale)
        for factor in (8, 4, 2):
            if size[0] >= factor * target[0] and size[1] >= factor * target[1]:
                image = cv2.imdecode(data, REDUCED[factor])
                if image is not None and abs(image.shape[1] * factor - size[0]) < factor:
                    return image, size
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f'image {path} cannot be decoded: replace the file or remove the sample')
    return image, (image.shape[1], image.shape[0])


def _jpeg_size(data: np.ndarray) -> tuple[int, int] | None:
    """(W, H) from a JPEG's frame header; None for anything else."""
    view = memoryview(data)
    if bytes(view[:2]) != b'\xff\xd8':
        return None
    at = 2
    while at + 9 < len(view) and view[at] == 0xFF:
        marker = view[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return (int.from_bytes(view[at + 7:at + 9], 'big'),
                    int.from_bytes(view[at + 5:at + 7], 'big'))
        at += 2 + int.from_bytes(view[at + 2:at + 4], 'big')
    return None


def _reduced_labels() -> np.ndarray:
    """What ``reduce_zero_label`` makes of each value: 0 is ignored, the others go down by 1."""
    table = VALUES - np.uint8(1)
    table[[0, 255]] = 255
    return table


_REDUCED_LABELS = _reduced_labels()


def _decode_labels(data: bytes) -> np.ndarray:
    """The values of a label file; a palette stays numbers, which OpenCV would turn to colours."""
    if data[:4] == b'\x89PNG' and data[24:26] == GREY_PNG:
        labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if labels is not None:
            return labels
    return mmcv.imfrombytes(data, flag='unchanged', backend='pillow').squeeze().astype(np.uint8)


def _on_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Applies a table to a channel of the image's HSV (H, W, 3)."""
    hsv = mmcv.bgr2hsv(image)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return mmcv.hsv2bgr(hsv)
