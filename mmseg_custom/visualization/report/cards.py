"""An image of the page: its scores, its legend and its confusions.

Letters: `K` classes.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...evaluation.results import Results
from .numbers import percent, points
from .pictures import Pictures

_WORST_CONFUSIONS = 3
_SMALL = 0.005  # share of an image below which a class is not in its legend, and not confused


@dataclass(frozen=True)
class Share:
    """A class in an image, with its share of the labelled pixels in each label map."""
    class_index: int
    shares: Sequence[float]


@dataclass(frozen=True)
class Card:
    """An image of the page.

    Attributes:
        name: Name of its file.
        score: Mean IoU, or its change; None without a labelled pixel.
        note: What is said of its score.
        classes: Classes in the legend, largest first.
        small_classes: Number of classes that are too small for it.
        shown: Classes in the ground truth.
        predicted: Classes in a prediction.
        confused: Classes taken for others, or others for them.
        confusions: Confusions of most of the wrong pixels, in words.
        size: Width and height of the pictures, pixels.
        photo: Address of the photo; None if its file cannot be read any more.
        layers: Address of the layers.
    """
    name: str
    score: float | None
    note: str
    classes: list[Share]
    small_classes: int
    shown: list[int]
    predicted: list[int]
    confused: list[int]
    confusions: str
    size: tuple[int, int]
    photo: str | None
    layers: str


def describe(runs: tuple[Results, ...], image: int, score: float, pictures: Pictures,
             photo: str | None, layers: str) -> Card:
    """Describes an image.

    Args:
        runs: One run, or two on the same images.
        image: Index of the image.
        score: Its score, or the change of it; NaN without a labelled pixel.
        pictures: Its pictures.
        photo: Address of the photo; None if its file cannot be read any more.
        layers: Address of the layers.
    """
    count = len(runs[0].classes)
    entries = [results.images.entries(image) for results in runs]
    shares, wrong = [_sums(entries[0][0], entries[0][2], count)], np.zeros(count)
    for ground_truth, prediction, pixels in entries:
        shares.append(_sums(prediction, pixels, count))
        missed = (ground_truth != prediction) & (ground_truth < count)
        wrong += _sums(ground_truth[missed], pixels[missed], count)
        wrong += _sums(prediction[missed], pixels[missed], count)
    total = max(1, entries[0][2].sum())
    relative = np.stack(shares) / total
    present = np.flatnonzero(relative.any(0)).tolist()
    large = [k for k in sorted(present, key=lambda k: -relative[:, k].max())
             if relative[:, k].max() >= _SMALL]
    return Card(
        name=str(runs[0].images.names[image]), score=float(score) if np.isfinite(score) else None,
        note=_say_score(runs, image, entries), classes=[Share(k, relative[:, k]) for k in large],
        small_classes=len(present) - len(large), shown=np.flatnonzero(relative[0]).tolist(),
        predicted=np.flatnonzero(relative[1:].any(0)).tolist(),
        confused=np.flatnonzero(wrong / total >= _SMALL).tolist(),
        confusions=_confusions(runs[0], *entries[0]) if len(runs) == 1 else '',
        size=pictures.size, photo=photo, layers=layers)


def _sums(labels: np.ndarray, pixels: np.ndarray, count: int) -> np.ndarray:
    """Sums pixels by class (K,)."""
    return np.bincount(labels, pixels, count + 1)[:count]


def _say_score(runs: tuple[Results, ...], image: int,
               entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> str:
    scores = [results.image_scores[image] for results in runs]
    if len(runs) == 2:
        return (f'mean IoU {percent(scores[0])} to {percent(scores[1])} '
                f'({points(scores[1] - scores[0], 1)})')
    ground_truth, prediction, pixels = entries[0]
    right = pixels[ground_truth == prediction].sum() / max(1, pixels.sum())
    return f'mean IoU {percent(scores[0])}, {percent(right)} % of its pixels right'


def _confusions(results: Results, ground_truth: np.ndarray, prediction: np.ndarray,
                pixels: np.ndarray) -> str:
    """Names the confusions of most of the wrong pixels."""
    wrong = np.flatnonzero((ground_truth != prediction) & (ground_truth < len(results.classes)))
    most = sorted(wrong, key=lambda e: -pixels[e])[:_WORST_CONFUSIONS]
    return ' · '.join(
        f'{results.classes[ground_truth[e]]} → {results.classes[prediction[e]]} '
        f'{percent(pixels[e] / pixels.sum())} %' for e in most)
