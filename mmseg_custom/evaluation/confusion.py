"""The cost of confusions, and the scores of single images.

Letters: `N` images, `K` classes.
"""
from dataclasses import dataclass

import numpy as np

from .bootstrap import iou, mean_over_classes


@dataclass(frozen=True)
class Pair:
    """A class that is taken for another.

    Attributes:
        ground_truth: Index of the true class.
        prediction: Index of the predicted class.
        pixels: Number of pixels confused.
        share: Share of these pixels among those of the true class, 0..1.
        cost: Gain of mIoU, 0..1, if these pixels alone were right.
    """
    ground_truth: int
    prediction: int
    pixels: int
    share: float
    cost: float


def costly_pairs(confusion: np.ndarray, intersect: np.ndarray, union: np.ndarray,
                 count: int) -> list[Pair]:
    """Finds the pairs that cost most mIoU, in descending order.

    If n pixels of class t that are taken for p were right, the intersection of t would grow by n
    and the union of p would shrink by n; all other areas would stay.

    Args:
        confusion: Pixels (K, K): true class, predicted class.
        intersect: Pixels of the intersection over all images (K,).
        union: Pixels of the union over all images (K,).
        count: Maximum number of pairs.
    """
    wrong = confusion * (1 - np.eye(len(confusion)))
    gain_of_true = np.nan_to_num(iou(wrong, np.broadcast_to(union[:, None], wrong.shape)))
    left = union[None] - wrong  # union of the predicted class afterwards
    before = np.nan_to_num(iou(intersect, union))
    gain_of_predicted = np.nan_to_num(
        iou(np.broadcast_to(intersect, wrong.shape), left)) - np.where(left > 0, before, 0)
    cost = np.where(wrong > 0, gain_of_true + gain_of_predicted, 0) / max(1, (union > 0).sum())
    dearest = np.argsort(-cost, axis=None, kind='stable')[:count]
    pairs = [divmod(int(cell), len(confusion)) for cell in dearest if cost.flat[cell] > 0]
    return [Pair(t, p, int(confusion[t, p]), float(confusion[t, p] / confusion[t].sum()),
                 float(cost[t, p])) for t, p in pairs]


def image_scores(intersect: np.ndarray, union: np.ndarray,
                 ground_truth: np.ndarray) -> np.ndarray:
    """Computes the mean IoU of each image over the classes of its ground truth.

    Args:
        intersect: Pixels of the intersection (N, K).
        union: Pixels of the union (N, K).
        ground_truth: Labelled pixels (N, K).

    Returns:
        Scores (N,), 0..1; nan for an image without a labelled pixel.
    """
    return mean_over_classes(np.where(ground_truth > 0, iou(intersect, union), np.nan))
