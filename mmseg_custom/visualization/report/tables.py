"""The tables: classes of one run, classes of two, confusions.

Letters: `N` images, `K` classes.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...evaluation.bootstrap import FEWEST_IMAGES, Comparison, class_intervals, iou
from ...evaluation.confusion import costly_pairs
from ...evaluation.metric_names import means_of
from ...evaluation.results import Results
from .numbers import count_of, is_known, number, percent, points

_PAIRS = 25
_IMAGES = 'number of images whose ground truth shows the class'


@dataclass(frozen=True)
class Bar:
    """A bar before a number; positions are shares of its full width, 0..1."""
    ends: Sequence[float]
    interval: Sequence[float] | None = None  # ends of a line over the bar
    kind: str = ''  # 'better' or 'worse': to the right or left of the middle


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""
    text: str
    value: float | str | None  # key to sort by; rows without one come last
    kind: str = 'number'  # CSS class
    mark: str = ''  # CSS class of the text in it
    colour: Sequence[int] | None = None  # RGB, of a class
    bar: Bar | None = None
    link: str = ''  # address that the text leads to

    @property
    def key(self) -> str:
        """The value as script.js reads it."""
        if isinstance(self.value, str):
            return self.value
        return f'{self.value:.6g}' if is_known(self.value) else ''


@dataclass(frozen=True)
class Table:
    """A table that sorts, and the text below it."""
    title: str
    columns: list[tuple[str, str]]  # name, explanation
    rows: list[list[Cell]]
    note: str
    sorted_by: str  # name of the column that the rows are sorted by, descending
    searched: str = 'class'  # what the field that filters the rows looks for; empty without one
    folded: 'Sequence[Folded]' = ()  # what is listed below it on request


@dataclass(frozen=True)
class Folded:
    """A list below a table that opens on request: rows of a table, or names."""
    summary: str
    names: Sequence[str] = ()
    table: Table | None = None


def data_sets(*runs: Results) -> list[Table]:
    """Lists the data sets that were tested together, with the metrics of each.

    Args:
        *runs: One run, or two on the same images, of which only mIoU is listed.
    """
    parts = runs[0].run.get('data_sets') or []
    if len(parts) < 2 or any(len(run.run.get('data_sets') or []) != len(parts) for run in runs):
        return []
    names = ['mIoU'] if len(runs) > 1 else list(means_of(runs[0].run['metric']))
    columns = [('Data set', 'folder of its images'), ('Images', 'that were measured'),
               *((f'{name}{letter}', 'of this data set alone, percent') for name in names
                 for letter in (('',) if len(runs) == 1 else (' of A', ' of B')))]
    if len(runs) == 1:
        columns.append(('95 % interval', 'of mIoU; bootstrap over images'))
    rows = []
    for position, part in enumerate(parts):
        values = [means_of(run.run['metric'], position) for run in runs]
        rows.append([Cell(part['image_folder'], part['image_folder'], 'name'),
                     Cell(number(part['images']), part['images']),
                     *(Cell(percent(one.get(name), 2), one.get(name))
                       for name in names for one in values)])
        if len(runs) == 1:
            ends = part.get('interval') or {}
            low, high = ends.get('low'), ends.get('high')
            rows[-1].append(Cell(f'{percent(low, 2)} – {percent(high, 2)}', low))
    return [Table('Data sets', columns, rows, '', '', searched='')]


def classes_of_one(results: Results) -> Table:
    """Lists the classes of a run: IoU with its interval, accuracy, Boundary IoU, pixels."""
    intersect, union = (area.sum(0) for area in results.areas)
    labelled = results.ground_truth_areas
    found, recall = iou(intersect, union), iou(intersect, labelled.sum(0))
    ends, edges = class_intervals(*results.areas), results.images.boundary_iou()
    columns = [('Class', 'name'), ('IoU', 'intersection over union, percent'),
               ('95 % interval', 'bootstrap over images'),
               ('Accuracy', 'share of its pixels that are found, percent'),
               *([('Boundary IoU', 'IoU of the bands along its edges, percent')]
                 if edges is not None else []),
               ('Images', _IMAGES), ('Pixels', 'labelled with it'),
               ('Share', 'of all labelled pixels, percent')]
    rows = []
    for k in sorted(np.flatnonzero(labelled.any(0)).tolist(), key=lambda k: -found[k]):
        pixels, images = labelled[:, k].sum(), (labelled[:, k] > 0).sum()
        rows.append([
            _class(results, k),
            _barred(percent(found[k]), found[k], _bar(found[k], ends[:, k].tolist())),
            Cell(f'{percent(ends[0, k])} – {percent(ends[1, k])}', ends[0, k]),
            Cell(percent(recall[k]), recall[k]),
            *([Cell(percent(edges[k]), edges[k])] if edges is not None else []),
            Cell(number(images), images), Cell(number(pixels), pixels),
            Cell(percent(pixels / labelled.sum(), 2), pixels)])
    return Table('Classes', columns, rows, f'Images: {_IMAGES}.', 'IoU', folded=_without_labels(
        results))


def classes_of_two(a: Results, b: Results, found: Comparison) -> Table:
    """Lists the classes of two runs: both IoUs, their difference and its significance."""
    before, after = (iou(*(area.sum(0) for area in results.areas)) for results in (a, b))
    pixels = a.ground_truth_areas.sum(0)
    known = np.isfinite(found.iou)
    scale = float(np.abs(found.iou[known]).max(initial=0)) * 1.15
    columns = [('Class', 'name'), ('A', 'IoU of A, percent'), ('B', 'IoU of B, percent'),
               ('B − A', 'points of IoU'), ('95 % interval', 'of the difference; paired bootstrap'),
               ('Verdict', 'of the classes marked, 5 % are expected to be marked by chance '
                           '(Benjamini-Hochberg); at least 6 images'),
               ('p', 'two-sided'), ('Images', _IMAGES), ('Pixels', 'labelled with it')]
    rows = []
    for k in sorted(np.flatnonzero(pixels).tolist(),
                    key=lambda k: -np.nan_to_num(found.iou[k], nan=-2)):
        low, high = found.iou_range[:, k]
        sign = found.significant[k] * np.sign(found.iou[k]) if known[k] else 0
        word, mark = {1: ('▲ better', 'better'), -1: ('▼ worse', 'worse')}.get(
            sign, ('not significant', 'note'))
        rows.append([
            _class(a, k), Cell(percent(before[k]), before[k]), Cell(percent(after[k]), after[k]),
            _barred(points(found.iou[k], 1), found.iou[k],
                    _two_sided_bar(found.iou[k], (low, high), scale)),
            Cell(f'{points(low, 1)} to {points(high, 1)}' if np.isfinite(low) else '–', low),
            Cell(word, sign, 'word', mark),
            Cell(f'{found.iou_p[k]:.2g}', found.iou_p[k]) if known[k] else Cell('–', None),
            Cell(number(found.images[k]), found.images[k]), Cell(number(pixels[k]), pixels[k])])
    return Table('Classes', columns, rows, f'Images: {_IMAGES}; classes in fewer than '
                 f'{FEWEST_IMAGES} are not marked.', 'B − A', folded=_without_labels(a, b))


def confusions(results: Results, title: str = 'Confusions that cost most') -> Table:
    """Lists the pairs of classes that cost most mIoU."""
    confusion = results.images.confusion(len(results.classes))
    intersect, union = (area.sum(0) for area in results.areas)
    pairs = costly_pairs(confusion, intersect, union, _PAIRS)
    columns = [('There is', 'the true class'), ('Taken for', 'the predicted class'),
               ('Cost', 'points of mIoU that would be gained if these pixels alone were right'),
               ('Share', 'of the pixels of the true class, percent'), ('Pixels', 'how many')]
    most = max((pair.cost for pair in pairs), default=1)
    rows = [[_class(results, pair.ground_truth), _class(results, pair.prediction),
             _barred(percent(pair.cost, 3), pair.cost, _bar(pair.cost / most)),
             Cell(percent(pair.share), pair.share), Cell(number(pair.pixels), pair.pixels)]
            for pair in pairs]
    return Table(title, columns, rows, 'Cost: points of mIoU that would be gained if the pixels '
                 'of this pair alone were right.', 'Cost', searched='')


def _class(results: Results, k: int) -> Cell:
    name = results.classes[k]
    return Cell(name, name, 'name', colour=results.palette[k])


def _barred(text: str, value: float, bar: Bar | None) -> Cell:
    return Cell(text, value, 'number barred', 'value', bar=bar)


def _without_labels(*runs: Results) -> list[Folded]:
    """Lists the classes that the ground truth never shows: predicted ones, and all others."""
    labelled = runs[0].ground_truth_areas.any(0)
    predicted = [results.areas[1] * ~labelled for results in runs]  # (N, K): all is union there
    pixels = np.stack([of_run.sum(0) for of_run in predicted])
    only = np.flatnonzero(pixels.any(0)).tolist()
    seen = np.logical_or(labelled, pixels.any(0)).tolist()
    never = [name for name, is_seen in zip(runs[0].classes, seen) if not is_seen]
    letters = [''] if len(runs) == 1 else [' in A', ' in B']
    columns = [('Class', 'name'), *((f'{what}{letter}', explanation) for letter in letters
               for what, explanation in (('Pixels', 'predicted as this class, all of them wrong'),
                                         ('Images', 'whose prediction shows it')))]
    rows = [[_class(runs[0], k), *(cell for of_run in predicted for cell in (
        Cell(number(of_run[:, k].sum()), of_run[:, k].sum()),
        Cell(number((of_run[:, k] > 0).sum()), (of_run[:, k] > 0).sum())))]
        for k in sorted(only, key=lambda k: -pixels[:, k].max())]
    found = []
    if only:
        by_run = '' if len(runs) == 1 else ' (' + ', '.join(
            f'{count}{letter}' for count, letter in zip((pixels > 0).sum(1), letters)) + ')'
        title = (f'{count_of(len(only), "class")} predicted{by_run}, but not in the ground truth: '
                 'each counts in the mean with an IoU of 0')
        found.append(Folded(title, table=Table(title, columns, rows, '', columns[1][0], '')))
    if never:
        found.append(Folded(f'{count_of(len(never), "class")} neither in the ground truth nor '
                            'predicted: in no mean', names=never))
    return found


def _bar(value: float, ends: Sequence[float] | None = None) -> Bar | None:
    """Makes a bar from 0 to a value of 0..1."""
    if not is_known(value):
        return None
    return Bar((0, value), ends if ends is not None and np.isfinite(ends).all() else None)


def _two_sided_bar(value: float, ends: Sequence[float], scale: float) -> Bar | None:
    """Makes a bar to the left (worse) or right (better) of the middle; `scale` fills a half."""
    if not is_known(value) or scale <= 0:
        return None

    def place(pair: Sequence[float]) -> list[float]:
        return ((np.clip(np.asarray(pair) / scale, -1, 1) + 1) / 2).tolist()

    return Bar(place(sorted((0, value))), place(ends) if np.isfinite(ends).all() else None,
               'better' if value > 0 else 'worse')
