"""The figures of a run, from its logs: metrics, losses and classes; and ``classes.csv``."""
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...evaluation.training_log import LOSS, Curve, TrainingLog
from ...files import atomic_write
from ...units import MIB, format_bytes

CSV = 'classes.csv'


@dataclass(frozen=True)
class ClassFigures:
    """Figures of a class, 0..1; None where it is neither in the ground truth nor predicted.

    Attributes:
        name: Name of the class.
        iou: IoU in the last evaluation.
        acc: Accuracy in the last evaluation.
        best_iou: IoU in the best evaluation.
        best_acc: Accuracy in the best evaluation.
    """
    name: str
    iou: float | None
    acc: float | None
    best_iou: float | None
    best_acc: float | None


@dataclass(frozen=True)
class Figures:
    """Figures of a run.

    Attributes:
        last: Iteration of the last evaluation; None without any.
        best: Iteration of the best evaluation.
        key: Metric that is best there.
        metrics: (name, value in the last evaluation, value in the best) of each mean, 0..1.
        classes: Classes in the order of the data set.
        training: (name, value in words) of the lines of the training.
    """
    last: int | None
    best: int | None
    key: str
    metrics: Sequence[tuple[str, float | None, float | None]]
    classes: Sequence[ClassFigures]
    training: Sequence[tuple[str, str]]

    @property
    def seen(self) -> list[ClassFigures]:
        """Classes with an IoU in the last evaluation, the worst first."""
        return sorted((one for one in self.classes if one.iou is not None),
                      key=lambda one: (one.iou, one.name))

    @property
    def score(self) -> float | None:
        """Value of ``key`` in the last evaluation."""
        return next((last for name, last, _ in self.metrics if name == self.key), None)

    @property
    def best_score(self) -> float | None:
        """Value of ``key`` in the best evaluation."""
        return next((best for name, _, best in self.metrics if name == self.key), None)


def figures_of(log: TrainingLog, save_best: str | None = None, images: int = 0) -> Figures:
    """Selects the figures of a run.

    Args:
        log: Its log.
        save_best: Metric of its best checkpoint; mIoU if it has none.
        images: Number of images in an iteration.
    """
    means = log.means
    key = save_best if save_best and save_best in log.metrics else (
        'mIoU' if 'mIoU' in means else next(iter(means), ''))
    best = _best(log.metrics[key]) if key else None
    last = max((int(curve.iterations[-1]) for curve in means.values()), default=None)
    shown = {key: log.metrics[key], **means} if key else {}
    names = log.classes or tuple(name.partition('.')[2] for name in log.metrics
                                 if name.startswith('IoU.'))
    classes = [ClassFigures(name.strip(), *(_at(log, f'{figure}.{name}', when)
                                            for when in (last, best) for figure in ('IoU', 'Acc')))
               for name in names] if means else []
    return Figures(last, best, key, [(name, _value(curve, last), _value(curve, best))
                                     for name, curve in shown.items()],
                   classes, _training(log, images))


def write_classes(path: str, classes: Sequence[ClassFigures]) -> None:
    """Writes the table of classes: IoU and accuracy (0..1), of the last and the best evaluation.

    Raises:
        SaveError: If it could not be written; an earlier one is unchanged.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(['class', 'IoU', 'Acc', 'best_IoU', 'best_Acc'])
    for one in classes:
        table.writerow([one.name, *('' if value is None else f'{value:.4f}' for value in
                                    (one.iou, one.acc, one.best_iou, one.best_acc))])
    atomic_write(path, text.getvalue().encode(errors='replace'))


def _training(log: TrainingLog, images: int) -> list[tuple[str, str]]:
    found = []
    losses = log.losses.get(LOSS, np.array([]))
    if len(losses):
        found.append(('Loss', f'{losses[-1]:.4g} (iteration {log.iterations[-1]})'))
    seconds = log.figures.get('time', np.array([]))
    seconds = seconds[np.isfinite(seconds) & (seconds > 0)]
    if len(seconds):
        usual = float(np.median(seconds))
        found.append(('Time of an iteration', f'{usual:.3g} s' + (
            f', {images / usual:.3g} images a second' if images else '')))
    memory = log.figures.get('memory', np.array([]))
    if len(memory) and np.nanmax(memory) > 0:
        found.append(('Peak memory of a GPU', format_bytes(float(np.nanmax(memory)) * MIB)))
    return found


def _best(curve: Curve) -> int | None:
    """Returns the first iteration of the highest value."""
    if not np.isfinite(curve.values).any():
        return None
    return int(curve.iterations[int(np.nanargmax(curve.values))])


def _value(curve: Curve, iteration: int | None) -> float | None:
    found = [] if iteration is None else curve.values[curve.iterations == iteration].tolist()
    return found[0] if found and math.isfinite(found[0]) else None


def _at(log: TrainingLog, name: str, iteration: int | None) -> float | None:
    return _value(log.metrics[name], iteration) if name in log.metrics else None
