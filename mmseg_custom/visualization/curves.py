"""Draws the curves of a training: loss, learning rate and metrics over its iterations.

matplotlib is imported when something is drawn, and without pyplot, which keeps figures alive.
`T` lines of the training.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.training_log import LOSS, Curve, TrainingLog
from ..files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PANEL_HEIGHT, DPI = 10., 2.6, 120  # inches, and pixels an inch: 1200 pixels wide
DECADES = 1.5  # from the least to the largest loss, beyond which its axis is logarithmic
FEW = 40  # points up to which each is marked
WINDOW = 1 / 50  # of all lines, which a smoothed value is the mean of
RAW, SMOOTH, BEST = '#9db7d5', '#1f4e8c', '#b3261e'  # 3:1 on white at least, but for RAW
COLOURS = (SMOOTH, '#946200', '#2f6f3a', '#7a3b8f')


def write_curves(path: str, log: TrainingLog, title: str = '') -> bool:
    """Draws the curves into a PNG file, 1200 pixels wide, whole or not at all.

    Args:
        path: Path of the .png.
        log: What was logged of a training.
        title: Title above the curves.

    Returns:
        Whether there was anything to draw.

    Raises:
        SaveError: If the file could not be written; an earlier one is unchanged.
    """
    if log.is_empty:
        return False
    figure = draw_curves(log, title)
    with atomic_path(path) as part:
        figure.savefig(part, format='png', dpi=DPI, metadata=dict(Software=None))
    return True


def draw_curves(log: TrainingLog, title: str = '') -> Figure:
    """Draws a panel each for loss, learning rate and metrics, as far as they are logged."""
    from matplotlib.figure import Figure
    there = {_draw_loss: LOSS in log.losses or 'loss_val' in log.metrics,
             _draw_rates: bool(log.learning_rates), _draw_scores: bool(scores_of(log))}
    panels = [draw for draw in there if there[draw]]
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * max(1, len(panels)) + 0.5), dpi=DPI,
                    layout='constrained', facecolor='white')
    found = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for panel, draw in zip(found, panels):
        draw(panel, log)
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
        panel.margins(x=0.02)
    found[-1].set_xlabel('iteration')
    found[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(_plain(title), fontsize=11)
    return figure


def scores_of(log: TrainingLog) -> dict[str, Curve]:
    """Selects the metrics that are drawn: mIoU and mBIoU, else the first means there are."""
    means = log.means
    chosen = [name for name in ('mIoU', 'mBIoU') if name in means] or list(means)[:2]
    return {name: means[name] for name in chosen}


def smoothed(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each value and those around it, a 50th of all; NaN stays NaN.

    Args:
        values: Values (T,), some of them NaN or infinite, which the means leave out.
    """
    reach = int(len(values) * WINDOW / 2)
    finite = np.isfinite(values)
    sums = np.concatenate([[0], np.cumsum(np.where(finite, values, 0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    places = np.arange(len(values))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    means = (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1)
    return np.where(finite, means, np.nan)


def _draw_loss(panel: Axes, log: TrainingLog) -> None:
    losses = log.losses.get(LOSS, np.array([]))
    many = len(losses) > FEW
    _draw_line(panel, log.iterations, losses, 'as logged', RAW if many else SMOOTH)
    if many:
        panel.plot(log.iterations, smoothed(losses), color=SMOOTH, linewidth=1.8, label='smoothed')
    validation = log.metrics.get('loss_val')
    if validation is not None:
        _draw_line(panel, validation.iterations, validation.values, 'validation images', BEST)
    shown = losses[np.isfinite(losses) & (losses > 0)]
    if len(shown) and np.log10(shown.max() / shown.min()) > DECADES and not (losses <= 0).any():
        panel.set_yscale('log')
    lost = log.iterations[~np.isfinite(losses)] if len(losses) else losses
    if len(lost):
        panel.plot(lost, np.full(len(lost), 0.02), '|', color=BEST, markersize=9,
                   transform=panel.get_xaxis_transform(),
                   label=f'NaN or infinite, first in iteration {lost[0]}')
    panel.set_ylabel('loss')
    if many or len(lost) or validation is not None:
        panel.legend(loc='upper right', fontsize=8, framealpha=0.9)


def _draw_rates(panel: Axes, log: TrainingLog) -> None:
    for (name, rates), colour in zip(log.learning_rates.items(), COLOURS):
        _draw_line(panel, log.iterations, rates, _plain(name), colour)
    if len(log.learning_rates) > 1:
        panel.legend(loc='upper right', fontsize=8)
    panel.set_ylabel('learning rate')
    panel.set_ylim(bottom=0)


def _draw_scores(panel: Axes, log: TrainingLog) -> None:
    scores = scores_of(log)
    for (name, curve), colour in zip(scores.items(), COLOURS):
        values = 100 * curve.values
        _draw_line(panel, curve.iterations, values, _plain(name), colour)
        if np.isfinite(values).any():
            best = int(np.nanargmax(values))
            panel.plot(curve.iterations[best], values[best], '*', color=BEST, markersize=11)
            panel.annotate(f'{values[best]:.2f}', (curve.iterations[best], values[best]),
                           textcoords='offset points', xytext=(-6, -14), ha='right', fontsize=9)
    if len(scores) > 1:
        panel.legend(loc='lower right', fontsize=8)
    panel.set_ylabel('percent' if len(scores) > 1 else f'{_plain(next(iter(scores)))} in percent')
    panel.margins(y=0.12)


def _draw_line(panel: Axes, iterations: np.ndarray, values: np.ndarray, label: str,
               colour: str) -> None:
    """Draws a curve; few values, and such between values that are not finite, as points too."""
    finite = np.isfinite(values)
    alone = finite & ~np.r_[False, finite[:-1]] & ~np.r_[finite[1:], False]
    marked = np.flatnonzero(finite if len(values) <= FEW else alone)
    panel.plot(iterations, np.where(finite, values, np.nan), color=colour, linewidth=1.2,
               label=label, marker='o' if len(marked) else None, markersize=4,
               markevery=marked.tolist())


def _plain(text: str) -> str:
    """Escapes what matplotlib takes for mathematics."""
    return text.replace('$', r'\$')
