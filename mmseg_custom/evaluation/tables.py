"""The metrics of an evaluation as a few lines for a person; files hold all of them."""
import math
from collections.abc import Mapping, Sequence
from numbers import Real

from .metric_names import means_of

MOST = 10  # classes that are all shown; of more, the best and the worst
ENDS = 4  # best classes, and worst ones


def summarize(metrics: Mapping[str, float], classes: Sequence[str],
              interval: Mapping[str, float] | None = None,
              folders: Sequence[str] = ()) -> str:
    """Formats the means, and a table of classes: of many, the best and the worst.

    Args:
        metrics: Metrics by name, 0..1: 'mIoU', 'IoU.wall' for a class, '0_mIoU' of the first of
            several data sets. NaN where a class is neither in the ground truth nor predicted.
        classes: Names of the K classes.
        interval: Interval of mIoU: ``low``, ``high`` and ``level``.
        folders: Folders of the images of several data sets.

    Returns:
        Lines; the first holds the means.
    """
    lines = [_means(means_of(metrics), interval)] if means_of(metrics) else []
    lines += [f'{folder}: {_means(means_of(metrics, number))}'
              for number, folder in enumerate(folders) if means_of(metrics, number)]
    names = [str(name) for name in classes]
    kinds = [name[1:] for name in means_of(metrics)
             if name.startswith('m') and any(f'{name[1:]}.{one}' in metrics for one in names)]
    if not kinds:
        return '\n'.join(lines)
    rows = [(name, [float(metrics.get(f'{kind}.{name}', math.nan)) for kind in kinds])
            for name in names]
    shown = [(name, values) for name, values in rows if not all(map(math.isnan, values))]
    lines += _table(kinds, shown)
    absent = len(rows) - len(shown)
    if absent:
        lines.append(f'  {absent} of {len(rows)} classes {"is" if absent == 1 else "are"} neither '
                     'in the ground truth nor predicted')
    return '\n'.join(lines)


def percent(value: float) -> str:
    """Formats a metric of 0..1 in percent, with two digits; others as they are."""
    if math.isnan(value):
        return '-'
    return f'{100 * value:.2f}' if 0 <= value <= 1 else f'{value:.5g}'


def _means(means: Mapping[str, float], interval: Mapping[str, float] | None = None) -> str:
    parts = []
    for name in sorted(means, key=lambda name: name != 'mIoU'):
        if not isinstance(means[name], Real):
            continue
        text = f'{name} {percent(means[name])}'
        if name == 'mIoU' and interval:
            text += (f' ({interval["level"]:.0%} interval {percent(interval["low"])} to '
                     f'{percent(interval["high"])})')
        parts.append(text)
    return ', '.join(parts)


def _table(kinds: Sequence[str], classes: Sequence[tuple[str, list[float]]]) -> list[str]:
    """Formats a row for each class, or for the best and the worst in order of the first metric."""
    cells = [[name.strip(), *map(percent, values)] for name, values in classes]
    if len(cells) > MOST:
        order = sorted(range(len(cells)), key=lambda i: -_or_zero(classes[i][1][0]))
        between = [[f'... {len(cells) - 2 * ENDS} more', *[''] * len(kinds)]]
        cells = [*(cells[i] for i in order[:ENDS]), *between, *(cells[i] for i in order[-ENDS:])]
    cells.insert(0, ['class', *kinds])
    widths = [max(len(row[i]) for row in cells) for i in range(len(kinds) + 1)]
    return ['  ' + '  '.join([row[0].ljust(widths[0]), *(
        cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip() for row in cells]


def _or_zero(value: float) -> float:
    return 0. if math.isnan(value) else value
