"""Contribution of one image to the metrics: its confusion, in pixels.

Letters: `H W` pixels, `K` classes, `E` entries: pairs of a true and a predicted class that occur.
"""
from collections.abc import Sequence
from typing import TypeGuard

import cv2
import numpy as np
import torch
from torch import Tensor

from ..datasets.ground_truth import IGNORE_INDEX
from ..errors import InputError
from .boundary import boundary_areas

PICTURE_SIDE = 512  # pixels, longest side of the label maps that are kept for pictures


class ImageRecord(tuple[Tensor, ...]):
    """The four areas of an image that mmseg's ``pre_eval`` returns, with more as attributes.

    The tuple is what ``CustomDataset.evaluate`` takes: the pixels (K,) of intersection, union,
    prediction and ground truth, float32 tensors.

    Attributes:
        name: File name of the image.
        pairs: True and predicted class of each entry (E, 2), int64. A true class of K stands for
            labels that are neither a class nor ignored.
        pixels: Number of pixels of each entry (E,), int64.
        boundary: Result of :func:`.boundary.boundary_areas` (3, K); None if not measured.
        maps: PNG file with the ground truth above the prediction, (2h, w), h and w at most 512.
    """

    name: str
    pairs: np.ndarray
    pixels: np.ndarray
    boundary: np.ndarray | None
    maps: bytes


def are_image_records(records: Sequence[tuple]) -> TypeGuard[Sequence[ImageRecord]]:
    """Returns whether no record comes from a data set's own ``pre_eval``."""
    return all(isinstance(record, ImageRecord) for record in records)


def measure(prediction: np.ndarray, ground_truth: np.ndarray, classes: int, name: str = '',
            ignore_index: int = IGNORE_INDEX, boundary: bool = False) -> ImageRecord:
    """Compares the prediction of an image with its ground truth.

    The areas equal those of mmseg's ``intersect_and_union``; they are sums over the confusion,
    which takes one pass over the pixels.

    Args:
        prediction: Classes (H, W), 0..K-1.
        ground_truth: Labels (H, W).
        classes: Number of classes K.
        name: File name of the image.
        ignore_index: Label of pixels that do not count.
        boundary: Whether to measure the boundary bands too.

    Raises:
        InputError: If the sizes differ or the prediction holds a label that is no class.
    """
    if prediction.shape != ground_truth.shape:
        raise InputError(f'prediction of {name} is {prediction.shape} pixels, its label '
                         f'{ground_truth.shape}: they belong to different data')
    if prediction.min() < 0 or prediction.max() >= classes:
        raise InputError(f'prediction of {name} holds class {prediction.max()}: expected '
                         f'0..{classes - 1}; the checkpoint is of other data')
    counted = ground_truth != ignore_index
    is_class = (ground_truth >= 0) & (ground_truth < classes)
    rows = np.where(is_class, ground_truth, classes)[counted].astype(np.int64)
    table = np.bincount(rows * classes + prediction[counted], minlength=(classes + 1) * classes)
    entries = np.flatnonzero(table)
    table = table.reshape(classes + 1, classes)
    hit, predicted, labelled = np.diagonal(table), table.sum(0), table[:classes].sum(1)
    areas = tuple(torch.from_numpy(area.astype(np.float32))
                  for area in (hit, predicted + labelled - hit, predicted, labelled))
    record = ImageRecord(areas)
    record.name, record.pairs = name, np.stack(np.divmod(entries, classes), 1)
    record.pixels = table.reshape(-1)[entries]
    record.boundary = boundary_areas(
        prediction, np.where(counted, ground_truth, -1), classes) if boundary else None
    record.maps = _encode_maps(ground_truth, prediction, counted, classes)
    return record


def decode_maps(maps: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Decodes ground truth and prediction (h, w) of a record, at most 512 pixels, for pictures.

    Ignored pixels have the highest value of the file, 255 or 65535.

    Raises:
        InputError: If the bytes are no PNG file of two label maps.
    """
    sides = [int.from_bytes(maps[start:start + 4], 'big') for start in (16, 20)]  # of a PNG
    both = None
    if sides[0] <= PICTURE_SIDE and sides[1] <= 2 * PICTURE_SIDE and sides[1] % 2 == 0:
        both = cv2.imdecode(np.frombuffer(maps, np.uint8), cv2.IMREAD_UNCHANGED)
    if both is None or both.ndim != 2:
        raise InputError('the label maps of an image cannot be decoded: run tools/test.py again')
    ground_truth, prediction = np.split(both, 2)
    return ground_truth, prediction


def _encode_maps(ground_truth: np.ndarray, prediction: np.ndarray, counted: np.ndarray,
                 classes: int) -> bytes:
    kind = np.uint8 if classes < 256 else np.uint16
    ground_truth = np.where(counted, ground_truth, np.iinfo(kind).max)
    scale = min(1., PICTURE_SIDE / max(ground_truth.shape))
    size = tuple(max(1, round(side * scale)) for side in ground_truth.shape[::-1])
    small = [cv2.resize(labels.astype(kind), size, interpolation=cv2.INTER_NEAREST)
             for labels in (ground_truth, prediction)]
    done, data = cv2.imencode('.png', np.concatenate(small))
    if not done:
        raise RuntimeError('OpenCV could not write a PNG')
    return data.tobytes()
