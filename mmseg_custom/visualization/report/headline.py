"""The top of the page: the metrics of one run or two, and what they were made with."""
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...evaluation.bootstrap import Comparison, iou, mean_over_classes
from ...evaluation.metric_names import means_of
from ...evaluation.results import UNPUBLISHED, Results
from ...units import format_bytes
from .numbers import count_of, is_known, percent, points

_BINS = 20
_EXPLAINED = dict(
    mIoU='intersection over union, mean over classes', mAcc='recall, mean over classes',
    aAcc='share of pixels that are right', mDice='Dice score, mean over classes',
    mFscore='F1 score, mean over classes', mPrecision='precision, mean over classes',
    mRecall='recall, mean over classes', mBIoU='boundary IoU, mean over classes')


@dataclass(frozen=True)
class Metric:
    """A metric of one run or more.

    Attributes:
        name: Name, such as 'mIoU'.
        explanation: What it is the share or the mean of.
        values: Value of each run, 0..1.
        classes: Number of classes that each value is the mean over; None where unknown.
        comparable: Whether the values are means over the same classes.
    """
    name: str
    explanation: str
    values: Sequence[float | None]
    classes: Sequence[int | None]
    comparable: bool = True

    @property
    def change(self) -> float | None:
        """Difference of the last value and the first; None where it would say nothing."""
        first, last = self.values[0], self.values[-1]
        return last - first if self.comparable and is_known(first) and is_known(last) else None


def metrics(*runs: Results) -> list[Metric]:
    """Returns the metrics that all runs have; of two, also over the classes that both have."""
    means = [means_of(results.run['metric']) for results in runs]
    found = []
    for name in sorted(means[0], key=lambda name: name != 'mIoU'):
        if not all(name in one for one in means):
            continue
        of_classes = [_of_classes(results, name) for results in runs]
        counted = [{key for key, value in one.items() if is_known(value)} for one in of_classes]
        same = all(one == counted[0] for one in counted)
        if not same:
            common = set.intersection(*counted)
            found.append(Metric(
                f'{name} over common classes', f'{_EXPLAINED.get(name, "")}, those that both have',
                [_mean([one[key] for key in common]) for one in of_classes],
                [len(common)] * len(runs)))
        found.append(Metric(name, _EXPLAINED.get(name, ''), [one[name] for one in means],
                            [len(one) or None for one in counted], same))
    return found


def _of_classes(results: Results, mean: str) -> dict[str, float | None]:
    """Returns the values that a metric is the mean of, by class."""
    if mean == 'mIoU':
        return dict(zip(results.classes, iou(*(area.sum(0) for area in results.areas)).tolist()))
    ending = f'{mean[1:]}.'
    return {name[len(ending):]: value for name, value in results.run['metric'].items()
            if mean.startswith('m') and name.startswith(ending)}


def _mean(values: Sequence[float | None]) -> float | None:
    return float(np.mean([value for value in values if is_known(value)])) if values else None


@dataclass(frozen=True)
class Counts:
    """Classes that the mIoU of a run is the mean over.

    Attributes:
        counted: Number of classes in the ground truth or a prediction.
        labelled: Number of classes in the ground truth.
        miou: mIoU over all that count.
        miou_labelled: mIoU over those in the ground truth.
    """
    counted: int
    labelled: int
    miou: float
    miou_labelled: float


def counts(results: Results) -> Counts:
    """Counts the classes of a run's mIoU."""
    found = iou(*(area.sum(0) for area in results.areas))
    labelled = results.ground_truth_areas.any(0)
    return Counts(int(np.isfinite(found).sum()), int(labelled.sum()),
                  float(mean_over_classes(found)),
                  float(mean_over_classes(np.where(labelled, found, np.nan))))


def in_words(results: Results) -> list[str]:
    """Says what the top of the page on a run says, for a terminal."""
    interval, of = results.run.get('interval') or {}, counts(results)
    ends = (f' (95 % interval {percent(interval["low"], 2)} to {percent(interval["high"], 2)})'
            if is_known(interval.get('low')) and is_known(interval.get('high')) else '')
    lines = [f'{results.name}: mIoU {percent(results.run["metric"]["mIoU"], 2)}{ends} over '
             f'{count_of(of.counted, "class")} of {len(results.classes)}, '
             f'{count_of(results.run["images"], "image")}']
    if of.counted > of.labelled:
        lines.append(f'  {of.counted - of.labelled} of these classes are only predicted (IoU 0); '
                     f'over the {of.labelled} in the ground truth: '
                     f'{percent(of.miou_labelled, 2)}')
    return lines


def compared_in_words(a: Results, b: Results, found: Comparison) -> list[str]:
    """Says what the top of the page on two runs says, for a terminal."""
    low, high = found.miou_range
    common = int(found.counted.all(0).sum())
    lines = [f'B - A: {points(found.miou)} points of mIoU over the {count_of(common, "class")} '
             f'that both have: {percent(found.means[0], 2)} to {percent(found.means[1], 2)} '
             f'(95 % interval of the difference {points(low)} to {points(high)}, '
             f'p = {found.miou_p:.2g}' + ('' if found.enough else
                                          ': of too few images to say anything') + ')']
    of_a, of_b = found.counted.sum(1)
    measured = [percent(results.run['metric']['mIoU'], 2) for results in (a, b)]
    lines.append(f'  mIoU as measured: A {measured[0]} over {count_of(of_a, "class")}, '
                 f'B {measured[1]} over {of_b}' + ('' if found.same_classes else
                 ': means over different classes, whose difference says nothing'))
    return lines


def histogram(results: Results) -> dict[str, object] | None:
    """Counts the images by their scores: ``counts`` in bins of 0..1, and the ``median``."""
    scores = results.image_scores[np.isfinite(results.image_scores)]
    if not scores.size:
        return None
    return dict(counts=np.histogram(scores, _BINS, (0, 1))[0].tolist(),
                median=float(np.median(scores)))


def origin(results: Results) -> dict[str, str]:
    """Lists what a run was made with, as far as it is known."""
    run = results.run
    checkpoint, time, memory, machine = (run.get(key, {}) for key in (
        'checkpoint', 'time', 'peak_memory_bytes', 'hardware'))
    items = {
        'config': run['config'], 'checkpoint': checkpoint.get('path'),
        'SHA-256 of it': checkpoint.get('sha256'),
        'frozen weights': run.get('frozen_dtype') and (
            f'{run["frozen_dtype"]}: {UNPUBLISHED}'),
        'time per image': f'{time["seconds_per_image"]:.3g} s ({time["seconds"]:.4g} s in all)'
        if time else None,
        'peak memory': ', '.join(f'{format_bytes(value)} ({key})'
                                 for key, value in memory.items()),
        'hardware': ', '.join(str(machine[key]) for key in ('gpu', 'cpu') if machine.get(key)),
        'processes': f'{machine.get("processes", 1)} on {machine.get("device")}, '
                     f'{machine.get("cpus")} CPUs',
        'versions': ', '.join(f'{key} {value}' for key, value in run.get('versions', {}).items()),
        'images': run.get('image_folder'), 'skipped': ', '.join(run.get('skipped', [])),
        'file': osp.abspath(results.path)}
    return {key: value for key, value in items.items() if value}
