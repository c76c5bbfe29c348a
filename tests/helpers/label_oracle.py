"""What labels mean, by numpy alone: the independent answer that loading and metrics are held to."""
from collections.abc import Sequence

import numpy as np


def meaning(stored: np.ndarray, names: Sequence[str], zero_is_ignored: bool,
            selected: Sequence[str] | None = None) -> np.ndarray:
    """Says which class each pixel of a label file belongs to, by the names of the classes.

    Args:
        stored: Numbers in the file (H, W).
        names: Names of all classes, in the order of their numbers in the file.
        zero_is_ignored: Whether the first class is 1 in the file, and 0 is ignored.
        selected: Names of the classes to learn, in their order; None for all.

    Returns:
        Position of each pixel's class among the selected ones (H, W), 255 where it has none.
    """
    selected = list(names if selected is None else selected)
    named = dict(enumerate(names, start=1 if zero_is_ignored else 0))
    out = np.full(stored.shape, 255)
    for number in np.unique(stored):
        if named.get(int(number)) in selected and number != 255:
            out[stored == number] = selected.index(named[int(number)])
    return out


def scores(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray],
           classes: int) -> dict[str, list[float] | float]:
    """Computes IoU and accuracy of each class, and the accuracy of all pixels that have a class.

    Args:
        predictions: Classes (H, W) of each image.
        truths: Results of :func:`meaning`.
        classes: Number of classes.
    """
    found, true = (np.concatenate([part.ravel() for part in parts])
                   for parts in (predictions, truths))
    found, true = found[true != 255], true[true != 255]
    iou, acc = [], []
    for k in range(classes):
        both, either = ((found == k) & (true == k)).sum(), ((found == k) | (true == k)).sum()
        iou.append(both / either if either else float('nan'))
        acc.append(both / (true == k).sum() if (true == k).any() else float('nan'))
    return dict(iou=iou, acc=acc, aAcc=float((found == true).mean()))
