"""Loads images at a reduced size: opt-in steps for pictures much larger than the crop.

H W pixels.
"""
import os.path as osp

import cv2
import mmcv
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import LoadImageFromFile, Resize

from ..errors import InputError
from .faults import problem

REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
           8: cv2.IMREAD_REDUCED_COLOR_8}


@PIPELINES.register_module()
class LoadImageReduced(LoadImageFromFile):
    """Loads and resizes an image, and decodes large JPEGs at 1/2, 1/4 or 1/8 of their size.

    Replaces ``LoadImageFromFile`` and ``Resize``: draws the scale as ``Resize`` does, decodes at
    the smallest size that is not below it (libjpeg drops frequencies, which is fast), and resizes
    the rest of the way. ``ResizeLabels`` has to come after ``LoadAnnotations``. Where nothing is
    reduced, the result is that of the two steps; elsewhere pixels differ, since frequencies that
    bilinear resizing would alias are left out: docs/data_loading.md has figures.

    Args:
        img_scale: (long, short) in pixels, as in ``Resize``.
        ratio_range: Range of a random factor on ``img_scale``; None for no factor.
        **kwargs: Arguments of ``LoadImageFromFile``.
    """

    def __init__(self, img_scale: tuple[int, int], ratio_range: tuple[float, float] | None = None,
                 **kwargs):
        super().__init__(**kwargs)
        self.file_client: mmcv.FileClient | None = None
        self.resize = Resize(img_scale=tuple(img_scale), ratio_range=ratio_range)

    def __call__(self, results: dict) -> dict:
        """Sets ``img`` (H, W, 3) and the other keys that the two steps set."""
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
    """Resizes the labels to the size of the image, by nearest neighbour."""

    def __call__(self, results: dict) -> dict:
        """Resizes all of ``seg_fields`` (H, W)."""
        height, width = results['img'].shape[:2]
        for key in results.get('seg_fields', []):
            results[key] = mmcv.imresize(results[key], (width, height), interpolation='nearest')
        return results


def _decode_for(data: np.ndarray, scale: tuple[int, int],
                path: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Decodes an image, reduced as far as ``scale`` allows.

    Returns:
        (image, (W, H) of the image before it was reduced).
    """
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
        raise InputError(f'image {path} {problem("undecodable", reason="by OpenCV")}')
    return image, (image.shape[1], image.shape[0])


def _jpeg_size(data: np.ndarray) -> tuple[int, int] | None:
    """Reads (W, H) from a JPEG's frame header; None for any other file."""
    view = data.tobytes()
    if view[:2] != b'\xff\xd8':
        return None
    at = 2
    while at + 9 < len(view) and view[at] == 0xFF:
        marker = view[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return (int.from_bytes(view[at + 7:at + 9], 'big'),
                    int.from_bytes(view[at + 5:at + 7], 'big'))
        at += 2 + int.from_bytes(view[at + 2:at + 4], 'big')
    return None
