"""The curves of the training: loss, learning rate and metrics over iterations, as SVG.

They are those of the training that wrote the checkpoint: its logs lie beside it, or, where the work
dir was moved, beside the results.
"""
import math
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...evaluation.results import Results
from ...evaluation.training_log import LOSS, TrainingLog, read_training_log
from .numbers import number

WIDTH, HEIGHT = 400, 170  # of the plot, units of the SVG
_MOST_POINTS = 300  # of a line; more are averaged
_METRICS = ('mIoU', 'mAcc', 'aAcc', 'mDice', 'mFscore', 'mBIoU')


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: Name in the legend.
        points: Points of an SVG polyline.
        dots: Positions of single points, if they are few.
        last: Last value, as text.
    """
    name: str
    points: str
    dots: list[tuple[float, float]]
    last: str


@dataclass(frozen=True)
class Chart:
    """A chart; positions are units of the SVG.

    Attributes:
        title: Title, with the unit.
        summary: What a screen reader says of it.
        x_ticks: Position and text of the ticks below.
        y_ticks: Position and text of the ticks to the left.
        lines: The lines.
    """
    title: str
    summary: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]


Series = tuple[str, np.ndarray, np.ndarray]  # name, iterations, values


def curves(*runs: Results) -> list[Chart]:
    """Draws the trainings of the checkpoints that were tested; empty without their logs."""
    logs = {letter: log for letter, results in zip('AB', runs) if (log := _log(results))}
    charts = [
        _chart('Loss', [(_named(run, 'loss', runs), log.iterations, log.losses[LOSS])
                        for run, log in logs.items() if LOSS in log.losses]),
        _chart('Learning rate', [
            (_named(run, '' if name == 'lr' else name, runs), log.iterations, values)
            for run, log in logs.items() for name, values in log.learning_rates.items()]),
        _chart('Metrics of evaluations, percent', [
            (_named(run, name, runs), curve.iterations, 100 * curve.values)
            for run, log in logs.items()
            for name in (_METRICS if len(logs) == 1 else _METRICS[:1])
            if (curve := log.metrics.get(name)) is not None])]
    return [chart for chart in charts if chart]


def _log(results: Results) -> TrainingLog | None:
    checkpoint = results.run.get('checkpoint', {}).get('path', '')
    if checkpoint == 'none':
        return None
    folder = osp.dirname(checkpoint)
    if not osp.isdir(folder):
        folder = osp.dirname(osp.abspath(results.path))
    try:
        log = read_training_log(folder)
    except OSError:  # The results can be read all the same.
        return None
    return None if log.is_empty else log


def _named(run: str, name: str, runs: Sequence[Results]) -> str:
    return ' '.join(filter(None, (run if len(runs) > 1 else '', name))) or 'learning rate'


def _chart(title: str, series: list[Series]) -> Chart | None:
    """Draws a chart; None without a value."""
    series = [(name, iterations[known], values[known]) for name, iterations, values in series
              if (known := np.isfinite(values)).any()]
    if not series:
        return None
    values = np.concatenate([one[2] for one in series])
    most = max(int(one[1].max()) for one in series)
    x_ticks = _ticks(0, max(1, most))
    lowest, highest = min(0., float(values.min())), max(0., float(values.max()))
    y_ticks = _ticks(lowest, highest if highest > lowest else 1.)
    low, high = y_ticks[0], max(y_ticks[-1], highest)
    end = max(x_ticks[-1], most)

    def place(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([x / end * WIDTH, (high - y) / (high - low) * HEIGHT], 1).round(1)

    lines = []
    for name, iterations, of_line in series:
        places = place(*_thinned(iterations, of_line)).tolist()
        lines.append(Line(name, ' '.join(f'{x:g},{y:g}' for x, y in places),
                          [tuple(one) for one in places] if len(places) <= 20 else [],
                          f'{of_line[-1]:.4g}'))
    words = '; '.join(f'{name} from {of_line[0]:.3g} to {of_line[-1]:.3g}, lowest '
                      f'{of_line.min():.3g}, highest {of_line.max():.3g}'
                      for name, _, of_line in series)
    return Chart(title, f'{title} over {number(most)} iterations: {words}',
                 [(x / end * WIDTH, number(x)) for x in x_ticks],
                 [((high - y) / (high - low) * HEIGHT, f'{y:.6g}') for y in y_ticks], lines)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages neighbours of a line that has more points than can be told apart."""
    if len(x) <= _MOST_POINTS:
        return x, y
    groups = np.array_split(np.arange(len(x)), _MOST_POINTS)
    return (np.array([x[group].mean() for group in groups]),
            np.array([y[group].mean() for group in groups]))


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Returns round numbers from at or below `low` to at most a step over `high`."""
    rough = (high - low) / count
    unit = 10. ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * .999)
    first, last = math.floor(low / step), math.floor(high / step + 1e-9)
    return [step * n for n in range(first, last + 1)]
