"""What confusions cost, and how single images score.

Letters: `N` images, `K` classes.
"""
from dataclasses import dataclass

import numpy as np

from .bootstrap import iou


@dataclass(frozen=True)
class Pair:
    """A true class that is taken for another.

    Attributes:
        truth: The class that is there.
        prediction: What it is taken for.
        pixels: How many.
        share: Of the pixels of the true class, 0..1.
        cost: What mIoU would gain, 0..1, if these pixels alone were right.
    """
    truth: int
    prediction: int
    pixels: int
    share: float
    cost: float


def costly_pairs(confusion: np.ndarray, intersect: np.ndarray, union: np.ndarray,
                 count: int) -> list[Pair]:
    """The pairs that cost most mIoU, the dearest first.

    If n pixels of class t that are taken for p were right, the intersection of t would grow by n
    and the union of p would shrink by n; both unions and intersections stay otherwise.

    Args:
        confusion: Pixels (K, K): true class, predicted class.
        intersect: Pixels (K,) of all images.
        union: Pixels (K,).
        count: How many pairs at most.
    """
    wrong = confusion * (1 - np.eye(len(confusion)))
    of_truth = np.nan_to_num(iou(wrong, np.broadcast_to(union[:, None], wrong.shape)))
    left = union[None] - wrong  # of the predicted class
    before = np.nan_to_num(iou(intersect, union))
    of_prediction = np.nan_to_num(iou(np.broadcast_to(intersect, wrong.shape), left)) - np.where(
        left > 0, before, 0)
    cost = np.where(wrong > 0, of_truth + of_prediction, 0) / max(1, (union > 0).sum())
    dearest = np.argsort(-cost, axis=None, kind='stable')[:count]
    pairs = [divmod(int(cell), len(confusion)) for cell in dearest if cost.flat[cell] > 0]
    return [Pair(t, p, int(confusion[t, p]), float(confusion[t, p] / confusion[t].sum()),
                 float(cost[t, p])) for t, p in pairs]


def image_scores(intersect: np.ndarray, union: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The mean IoU of each image over the classes of its truth, (N,); nan without any.

    Args:
        intersect: Pixels (N, K).
        union: Pixels (N, K).
        truth: Labelled pixels (N, K).
    """
    there = truth > 0
    return iou(np.where(there, np.nan_to_num(iou(intersect, union)), 0).sum(1), there.sum(1))
