"""The numbers in label files, and the ground truth of an image as the metrics read it.

H W pixels, K classes. A file holds 0..K-1 and 255 for what is ignored; with ``reduce_zero_label``
it holds 1..K, and 0 or 255 for what is ignored. Where ``classes`` selects some of a data set's
classes, they are numbered in that order, and the others are ignored.
"""
from collections.abc import Mapping

import numpy as np
from mmseg.datasets import CustomDataset

IGNORE_INDEX = 255  # mmseg's label for pixels that belong to no class


def class_numbers(stored: np.ndarray, reduce_zero_label: bool = False,
                  label_map: Mapping[int, int] | None = None) -> np.ndarray:
    """Turns the numbers of a label file into classes, and 255 for what is ignored.

    Args:
        stored: Numbers of the file, uint8 of any shape.
        reduce_zero_label: Whether the first class is 1 in the file, and 0 is ignored.
        label_map: Numbers of the file -> numbers that take their place first; others stay.
    """
    table = np.arange(256, dtype=np.uint8)
    for old, new in (label_map or {}).items():
        if 0 <= old < len(table):
            table[old] = new if new >= 0 else IGNORE_INDEX
    if reduce_zero_label:
        table = np.where((table == 0) | (table == IGNORE_INDEX), IGNORE_INDEX,
                         table - np.uint8(1)).astype(np.uint8)
    elif not label_map:
        return stored
    return np.take(table, stored)


def read_ground_truth(dataset: CustomDataset, index: int) -> np.ndarray:
    """Loads the label map (H, W) of an image: 0..K-1, or 255 where it is not labelled."""
    labels = dataset.get_gt_seg_map_by_idx(index).astype(np.int64)
    if dataset.reduce_zero_label:  # mmseg leaves this to the metric
        labels = np.where((labels == 0) | (labels == IGNORE_INDEX), IGNORE_INDEX, labels - 1)
    return labels
