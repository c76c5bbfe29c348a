"""Confidence intervals of metrics: the bootstrap over images.

As many images as there are get drawn with replacement, and the metric is computed for each such
draw (Efron 1979). The sums of areas over a draw are a matrix product, counts times areas, so that
thousands of draws take a second. The seed is fixed: the same results give the same interval.

Letters: `N` images, `K` classes, `R` draws.
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SEED = 0
LEVEL = 0.95
DRAWS = 1000
PAIRED_DRAWS = 10_000
FEWEST_IMAGES = 6  # even if a class gains in all of 5 images, a sign test has p = 2 / 2**5 > 0.05
_BLOCK = 500  # draws at a time: 8 MB for 2000 images


@dataclass
class Comparison:
    """Difference of two results on the same images, B minus A.

    A class counts in the mIoU of a run if the ground truth or a prediction of the run shows it. A
    class that is only predicted has an IoU of 0 there, and is missing in a run that never predicts
    it, so that the mIoUs of two runs may be means over different classes. The means compared here
    are over the classes that count in both.

    Attributes:
        counted: Whether each class counts in the mIoU of A and of B (2, K).
        means: Mean IoU of A and of B over the classes that count in both.
        miou: Difference of these means.
        miou_range: 95 % interval of the difference of the means.
        miou_p: Two-sided p-value of the difference of the means.
        iou: Difference of the IoU of each class (K,); nan where a class is absent from one result.
        iou_range: 95 % interval of the difference for each class (2, K).
        iou_p: Two-sided p-value for each class (K,).
        images: Number of images whose ground truth shows each class (K,).
        enough: Whether there are images enough, at least 6, to say that the means differ.
        significant: Whether each class differs significantly (K,). Of the classes marked, 5 % are
            expected to be marked by chance (Benjamini and Hochberg 1995); a class in the ground
            truth of fewer than 6 images never is.
    """
    counted: np.ndarray
    means: tuple[float, float]
    miou: float
    miou_range: tuple[float, float]
    miou_p: float
    iou: np.ndarray
    iou_range: np.ndarray
    iou_p: np.ndarray
    images: np.ndarray
    enough: bool
    significant: np.ndarray

    @property
    def differs(self) -> bool:
        """Whether the means differ significantly."""
        low, high = self.miou_range
        return self.enough and (low > 0 or high < 0)

    @property
    def same_classes(self) -> bool:
        """Whether the same classes count in both runs, so that their mIoUs can be compared."""
        return bool((self.counted[0] == self.counted[1]).all())


def iou(intersect: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Computes intersection over union of pixels, of any shape; nan where the union is empty."""
    return np.divide(intersect, union, out=np.full(np.shape(union), np.nan),
                     where=np.asarray(union) > 0)


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Computes the mean over the classes that are present, not nan, (..., K) -> (...)."""
    present = np.isfinite(values)
    return iou(np.where(present, values, 0).sum(-1), present.sum(-1))


def miou_interval(intersect: np.ndarray, union: np.ndarray,
                  draws: int = DRAWS) -> tuple[float, float] | None:
    """Computes the 95 % interval of mIoU over images (percentile method).

    Args:
        intersect: Pixels of the intersection (N, K).
        union: Pixels of the union (N, K).
        draws: Number of draws R.

    Returns:
        Ends of the interval, 0..1; None for a single image, or if no class is present.
    """
    if len(intersect) < 2 or not union.any():
        return None
    means = np.concatenate([mean_over_classes(iou(counts @ intersect, counts @ union))
                            for counts in _draws(len(intersect), draws)])
    return _interval(means)


def class_intervals(intersect: np.ndarray, union: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """Computes the 95 % interval of the IoU of each class.

    Args:
        intersect: Pixels of the intersection (N, K).
        union: Pixels of the union (N, K).
        draws: Number of draws R.

    Returns:
        Ends (2, K), 0..1; nan for a class that no draw shows.
    """
    return _quantiles(np.concatenate([
        iou(counts @ intersect, counts @ union).astype(np.float32)
        for counts in _draws(len(intersect), draws)]))


def compare(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray],
            ground_truth: np.ndarray, draws: int = PAIRED_DRAWS) -> Comparison:
    """Compares two results image by image: both get the same draws (paired bootstrap).

    Args:
        a: Pixels (N, K) of intersection and union of the first result.
        b: Pixels (N, K) of intersection and union of the second result.
        ground_truth: Labelled pixels (N, K).
        draws: Number of draws R.
    """
    areas = np.hstack([*a, *b]).astype(np.float64)  # (N, 4K)
    per_class, means = [], []
    for counts in _draws(len(areas), draws):
        i_a, u_a, i_b, u_b = np.hsplit(counts @ areas, 4)
        change = iou(i_b, u_b) - iou(i_a, u_a)
        per_class.append(change.astype(np.float32))
        means.append(mean_over_classes(change))
    changes, mean_changes = np.concatenate(per_class), np.concatenate(means)  # (R, K), (R,)
    found = np.stack([iou(i.sum(0), u.sum(0)) for i, u in (a, b)])  # (2, K)
    difference = found[1] - found[0]
    of_a, of_b = mean_over_classes(np.where(np.isfinite(difference), found, np.nan))
    images = (ground_truth > 0).sum(0)
    p = _p_values(changes)
    known = np.isfinite(difference) & (images >= FEWEST_IMAGES)
    significant = np.zeros(len(p), bool)
    significant[known] = _benjamini_hochberg(p[known], 1 - LEVEL)
    return Comparison(
        counted=np.isfinite(found), means=(float(of_a), float(of_b)), miou=float(of_b - of_a),
        miou_range=_interval(mean_changes), miou_p=float(_p_values(mean_changes[:, None])[0]),
        iou=difference, iou_range=_quantiles(changes), iou_p=p, images=images,
        enough=len(areas) >= FEWEST_IMAGES, significant=significant)


def _draws(images: int, draws: int) -> Iterator[np.ndarray]:
    """Yields blocks of counts (r, N), float64: how often each image is in a draw."""
    rng = np.random.default_rng(SEED)
    for start in range(0, draws, _BLOCK):
        rows = min(_BLOCK, draws - start)
        drawn = rng.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(
            np.float64)


def _tails() -> list[float]:
    return [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Computes the ends of the 95 % interval of a metric (R,)."""
    low, high = np.nanquantile(values, _tails())
    return float(low), float(high)


def _quantiles(values: np.ndarray) -> np.ndarray:
    """Computes the ends of the 95 % interval of each class, (R, K) -> (2, K)."""
    ends = np.full((2, values.shape[1]), np.nan)
    known = np.isfinite(values).any(0)
    if known.any():
        ends[:, known] = np.nanquantile(values[:, known], _tails(), axis=0)
    return ends


def _p_values(differences: np.ndarray) -> np.ndarray:
    """Computes two-sided p-values, (R, K) -> (K,): twice the share of draws on the rarer side of 0.

    They are never 0, because the observed difference counts as a draw on either side.
    """
    draws = np.isfinite(differences).sum(0)
    sides = [((differences <= 0).sum(0) + 1) / (draws + 1),
             ((differences >= 0).sum(0) + 1) / (draws + 1)]
    return np.minimum(1, 2 * np.minimum(*sides))


def _benjamini_hochberg(p: np.ndarray, rate: float) -> np.ndarray:
    """Selects the significant p-values at a rate of false discoveries."""
    if not p.size:
        return np.zeros(0, bool)
    order = np.sort(p)
    passed = order <= rate * np.arange(1, p.size + 1) / p.size
    return p <= order[passed].max() if passed.any() else np.zeros(p.size, bool)
