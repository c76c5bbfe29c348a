"""The areas of predictions that mmseg's metrics add up.

H W pixels, K classes. mmseg's ``intersect_and_union`` selects and converts all pixels several
times; here pairs of labels are counted in one pass, and a ground truth is read once for all
predictions of an image.
"""
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..datasets.ground_truth import read_ground_truth

NUMBERS = 256  # of labels in 8 bits
EXACT = 2**24  # pixels that a float32 counts


class Areas:
    """A data set's ``pre_eval`` with the same results, for data sets that do not override it.

    Args:
        dataset: Data set for which :func:`.metric_names.measures_as_mmseg` holds.
    """

    def __init__(self, dataset: Dataset):
        self._dataset = dataset
        self._index: int | None = None
        self._ground_truth = np.empty((0, 0), np.int64)

    def __call__(self, predictions: Sequence[np.ndarray], indices: Sequence[int]
                 ) -> list[tuple[Tensor, ...]]:
        """Measures predictions (H, W) of images.

        Returns:
            For each, the pixels (K,) of intersection, union, prediction and ground truth, float32.

        Raises:
            InputError: If a label cannot be read.
        """
        return [self._measure(prediction, index)
                for prediction, index in zip(predictions, indices)]

    def _measure(self, prediction: np.ndarray, index: int) -> tuple[Tensor, ...]:
        if index != self._index:
            self._ground_truth = read_ground_truth(self._dataset, index)
            self._index = index
        return areas(prediction, self._ground_truth, len(self._dataset.CLASSES),
                     self._dataset.ignore_index)


def areas(prediction: np.ndarray, ground_truth: np.ndarray, classes: int,
          ignore_index: int) -> tuple[Tensor, ...]:
    """Computes what mmseg's ``intersect_and_union`` does of two label maps (H, W).

    Args:
        prediction: Classes, 0..K-1.
        ground_truth: Labels; those that are no class count for no area but the prediction's.
        classes: Number of classes K.
        ignore_index: Label of pixels that do not count.
    """
    fits = classes < NUMBERS and prediction.size <= EXACT and (
        0 <= ground_truth.min(initial=0) and ground_truth.max(initial=0) < NUMBERS)
    table = (_count_bytes if fits else _count)(prediction, ground_truth, classes, ignore_index)
    hits, predicted, labelled = table.diagonal(), table.sum(0), table[:classes].sum(1)
    return tuple(torch.from_numpy(part.astype(np.float32))
                 for part in (hits, predicted + labelled - hits, predicted, labelled))


def _count_bytes(prediction: np.ndarray, ground_truth: np.ndarray, classes: int,
                 ignore_index: int) -> np.ndarray:
    """Counts pairs of labels of 8 bits; returns (256, K) by label and predicted class."""
    maps = [labels.astype(np.uint8) for labels in (ground_truth, prediction)]
    table = cv2.calcHist(maps, [0, 1], None, [NUMBERS, NUMBERS], [0, NUMBERS, 0, NUMBERS])
    if 0 <= ignore_index < NUMBERS:
        table[ignore_index] = 0
    return table[:, :classes].astype(np.int64)


def _count(prediction: np.ndarray, ground_truth: np.ndarray, classes: int,
           ignore_index: int) -> np.ndarray:
    """Counts pairs of labels; returns (K + 1, K), where K stands for labels that are no class."""
    counted = ground_truth != ignore_index
    is_class = (ground_truth >= 0) & (ground_truth < classes)
    rows = np.where(is_class, ground_truth, classes)[counted].astype(np.int64)
    pairs = np.bincount(rows * classes + prediction[counted], minlength=(classes + 1) * classes)
    return pairs.reshape(classes + 1, classes)
