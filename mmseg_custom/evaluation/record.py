"""What one image adds to the figures: who was taken for whom, on how many pixels.

Letters: `H W` pixels, `K` classes, `E` entries: pairs of a true and a predicted class that occur.
"""
import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .boundary import boundary_areas

PICTURE_SIDE = 512  # pixels, of the label maps that are kept for pictures


class ImageRecord(tuple):
    """The four areas of an image as mmseg's ``pre_eval`` has them, and more beside them.

    As a tuple it is what ``CustomDataset.evaluate`` takes: the pixels (K) of intersection, union,
    prediction and truth, float32 tensors.

    Attributes:
        name: The image's file.
        pairs: (E, 2) int64: true class and predicted class. A true class of K stands for labels
            that are neither a class nor ignored.
        pixels: (E,) int64: how many of each.
        boundary: (3, K) int64, see :func:`.boundary.boundary_areas`; None if not measured.
        maps: PNG file with the truth above the prediction, (2h, w) with h and w at most 512.
    """

    def __new__(cls, areas: tuple[Tensor, ...], name: str = '', pairs: np.ndarray | None = None,
                pixels: np.ndarray | None = None, boundary: np.ndarray | None = None,
                maps: bytes = b''):
        """The rest may be missing, for pickle sets it afterwards."""
        record = super().__new__(cls, areas)
        record.name, record.pairs, record.pixels = name, pairs, pixels
        record.boundary, record.maps = boundary, maps
        return record


def measure(prediction: np.ndarray, truth: np.ndarray, classes: int, name: str = '',
            ignored: int = 255, boundary: bool = False) -> ImageRecord:
    """Compares the prediction of an image with its truth.

    The areas equal those of mmseg's ``intersect_and_union``; they are read off the confusion,
    which takes one pass over the pixels.

    Args:
        prediction: Classes (H, W), 0..K-1.
        truth: Labels (H, W).
        classes: K.
        name: Of the image.
        ignored: The label of pixels that do not count.
        boundary: Also measure the boundary bands.

    Raises:
        InputError: If the sizes differ or a prediction is no class.
    """
    if prediction.shape != truth.shape:
        raise InputError(f'prediction of {name} is {prediction.shape} pixels, its label '
                         f'{truth.shape}: they belong to different data')
    if prediction.min() < 0 or prediction.max() >= classes:
        raise InputError(f'prediction of {name} holds class {prediction.max()}: expected '
                         f'0..{classes - 1}; the checkpoint is of other data')
    counted = truth != ignored
    rows = np.where((truth >= 0) & (truth < classes), truth, classes)[counted].astype(np.int64)
    table = np.bincount(rows * classes + prediction[counted], minlength=(classes + 1) * classes)
    entries = np.flatnonzero(table)
    table = table.reshape(classes + 1, classes)
    hit, predicted, labelled = np.diagonal(table), table.sum(0), table[:classes].sum(1)
    areas = tuple(torch.from_numpy(area.astype(np.float32))
                  for area in (hit, predicted + labelled - hit, predicted, labelled))
    return ImageRecord(
        areas, name, np.stack(np.divmod(entries, classes), 1), table.reshape(-1)[entries],
        boundary_areas(prediction, np.where(counted, truth, -1), classes) if boundary else None,
        _encode_maps(truth, prediction, counted, classes))


def decode_maps(maps: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction (h, w) of a record; what is ignored is the highest value, 255 or 65535.

    h and w are at most 512: they are for pictures.
    """
    both = cv2.imdecode(np.frombuffer(maps, np.uint8), cv2.IMREAD_UNCHANGED)
    truth, prediction = np.split(both, 2)
    return truth, prediction


def _encode_maps(truth: np.ndarray, prediction: np.ndarray, counted: np.ndarray,
                 classes: int) -> bytes:
    kind = np.uint8 if classes < 256 else np.uint16
    truth = np.where(counted, truth, np.iinfo(kind).max)
    scale = min(1., PICTURE_SIDE / max(truth.shape))
    size = tuple(max(1, round(side * scale)) for side in truth.shape[::-1])
    small = [cv2.resize(labels.astype(kind), size, interpolation=cv2.INTER_NEAREST)
             for labels in (truth, prediction)]
    done, data = cv2.imencode('.png', np.concatenate(small))
    if not done:
        raise RuntimeError('OpenCV could not write a PNG')
    return data.tobytes()
