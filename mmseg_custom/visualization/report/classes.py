"""The tables: classes of one run, classes of two, confusions.

Letters: `N` images, `K` classes.
"""
import numpy as np

from ...evaluation.bootstrap import Comparison, class_intervals, iou
from ...evaluation.confusion import costly_pairs
from ...evaluation.results import Results
from .text import bar, barred, cell, escape, head, number, percent, points, swatch, two_sided_bar

_PAIRS = 25


def table_of_one(results: Results) -> str:
    """Class by class: IoU with its interval, accuracy, boundary IoU, how much there is of it."""
    count = len(results.classes)
    intersect, union = (area.sum(0) for area in results.areas)
    truth = results.images.truth_areas(count)
    found, recall, ends = iou(intersect, union), iou(intersect, truth.sum(0)), class_intervals(
        *results.areas)
    edges = _boundary(results)
    columns = [('Class', 'name'), ('IoU', 'intersection over union, percent'),
               ('95 % interval', 'bootstrap over images'),
               ('Accuracy', 'share of its pixels that are found, percent'),
               *([('Boundary IoU', 'IoU of the bands along its edges, percent')]
                 if edges is not None else []),
               ('Images', 'that show it in the truth'), ('Pixels', 'labelled with it'),
               ('Share', 'of all labelled pixels, percent')]
    rows = []
    for k in sorted(np.flatnonzero(union), key=lambda k: -found[k]):
        pixels = truth[:, k].sum()
        rows.append('<tr>' + _class(results, k) + ''.join([
            barred(found[k], bar(found[k], ends[:, k]), percent(found[k])),
            cell(ends[0, k], f'{percent(ends[0, k])} – {percent(ends[1, k])}'),
            cell(recall[k], percent(recall[k])),
            *([cell(edges[k], percent(edges[k]))] if edges is not None else []),
            cell((truth[:, k] > 0).sum(), number((truth[:, k] > 0).sum())),
            cell(pixels, number(pixels)),
            cell(pixels, percent(pixels / truth.sum(), 2))]) + '</tr>')
    return _section('Classes', columns, rows, _absent(results, union), 'IoU')


def table_of_two(a: Results, b: Results, found: Comparison) -> str:
    """Class by class: IoU of both runs, their difference, and whether it is one."""
    before, after = (iou(*(area.sum(0) for area in results.areas)) for results in (a, b))
    union = a.areas[1].sum(0) + b.areas[1].sum(0)
    known = np.isfinite(found.iou)
    scale = float(np.abs(found.iou[known]).max(initial=0)) * 1.15
    pixels = a.images.truth_areas(len(a.classes)).sum(0)
    columns = [('Class', 'name'), ('A', 'IoU of A, percent'), ('B', 'IoU of B, percent'),
               ('B − A', 'points of IoU'), ('95 % interval', 'of the difference; paired bootstrap'),
               ('Verdict', 'of the classes marked, 5 % are expected to be marked by chance '
                           '(Benjamini-Hochberg); at least 6 images'),
               ('p', 'two-sided'), ('Images', 'that show it'), ('Pixels', 'labelled with it')]
    rows = []
    for k in sorted(np.flatnonzero(union), key=lambda k: -np.nan_to_num(found.iou[k], nan=-2)):
        low, high = found.iou_range[:, k]
        mark = found.significant[k] * np.sign(found.iou[k]) if known[k] else 0
        word = {1: '<b class="better">▲ better</b>', -1: '<b class="worse">▼ worse</b>'}.get(
            mark, '<span class="note">not significant</span>')
        rows.append('<tr>' + _class(a, k) + ''.join([
            cell(before[k], percent(before[k])), cell(after[k], percent(after[k])),
            barred(found.iou[k], two_sided_bar(found.iou[k], (low, high), scale),
                   points(found.iou[k], 1)),
            cell(low, f'{points(low, 1)} to {points(high, 1)}' if np.isfinite(low) else '–'),
            cell(mark, word, 'word'),
            cell(found.iou_p[k] if known[k] else None,
                 f'{found.iou_p[k]:.2g}' if known[k] else '–'),
            cell(found.images[k], number(found.images[k])),
            cell(pixels[k], number(pixels[k]))]) + '</tr>')
    return _section('Classes', columns, rows, _absent(a, union), 'B − A')


def confusions(results: Results, title: str = 'Confusions that cost most') -> str:
    """The pairs of classes whose mending would bring most mIoU."""
    confusion = results.images.confusion(len(results.classes))
    pairs = costly_pairs(confusion, *(area.sum(0) for area in results.areas), _PAIRS)
    columns = [('There is', 'the true class'), ('Taken for', 'the predicted class'),
               ('Cost', 'points of mIoU that would be gained if these pixels alone were right'),
               ('Share', 'of the pixels of the true class, percent'), ('Pixels', 'how many')]
    most = max((pair.cost for pair in pairs), default=1)
    rows = ['<tr>' + _class(results, pair.truth)
            + _class(results, pair.prediction, 'td') + barred(
                pair.cost, bar(pair.cost / most), percent(pair.cost, 3))
            + cell(pair.share, percent(pair.share)) + cell(pair.pixels, number(pair.pixels))
            + '</tr>' for pair in pairs]
    return _section(title, columns, rows, 'Cost: points of mIoU that would be gained if the pixels '
                    'of this pair alone were right.', 'Cost', filtered=False)


def _boundary(results: Results) -> np.ndarray | None:
    """Boundary IoU (K,); None if the run did not measure it."""
    if not len(results.images.boundary):
        return None
    hit, of_prediction, of_truth = results.images.boundary.sum(0)
    return iou(hit, of_prediction + of_truth - hit)


def _class(results: Results, k: int, tag: str = 'th') -> str:
    name = escape(results.classes[k])
    scope = ' scope="row"' if tag == 'th' else ''
    return (f'<{tag}{scope} class="name" data-value="{name}">{swatch(results.palette[k])}{name}'
            f'</{tag}>')


def _absent(results: Results, union: np.ndarray) -> str:
    absent = [name for name, pixels in zip(results.classes, union) if not pixels]
    if not absent:
        return ''
    return (f'{len(absent)} classes are neither in the truth nor predicted, and count in no mean: '
            + escape(', '.join(absent)) + '.')


def _section(title: str, columns: list, rows: list[str], note: str, by: str,
             filtered: bool = True) -> str:
    find = ('<label class="find">Find <input type="search" data-filter placeholder="class">'
            '</label>' if filtered else '')
    return f"""<section>
<div class="bar-head"><h2>{title}</h2>{find}</div>
<div class="scroll" tabindex="0" role="region" aria-label="{title}">
<table class="sortable"><caption class="hidden">{title}; the buttons in the head sort</caption>
{head(columns, by)}<tbody>
{chr(10).join(rows)}
</tbody></table></div>
<p class="note">{note}</p>
</section>"""
