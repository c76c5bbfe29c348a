"""The confusion matrix: of all classes, or of those that are confused most.

Letters: `K` classes, `M` classes of the matrix.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...evaluation.results import Results
from .numbers import count_of, number, percent

_MOST_CLASSES = 20
_VISIBLE = 0.005  # share of a row that is written into its cell


@dataclass(frozen=True)
class MatrixCell:
    """A cell.

    Attributes:
        depth: Depth of its colour, 0..1: the root of its share of the row, so that small ones show.
        number: Share in percent, as text; empty for a small one.
        text: What it says in words.
        kind: CSS class: 'right' on the diagonal, 'others' in the last column.
    """
    depth: float
    number: str
    text: str
    kind: str


@dataclass(frozen=True)
class Matrix:
    """Confusions by their share of the pixels of the true class.

    Attributes:
        title: Title of the section.
        note: Which classes it has, and how it is read.
        columns: Names of the predicted classes.
        rows: Index and name of each true class, and its cells.
    """
    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[tuple[int, str, list[MatrixCell]]]


def confusion_matrix(results: Results, run: str = '') -> Matrix | None:
    """Makes the matrix of a run; None without a labelled pixel.

    Args:
        results: Test run.
        run: What is added to the title, such as ' of B'.
    """
    confusion = results.images.confusion(len(results.classes)).astype(np.float64)
    labelled = confusion.sum(1)
    wrong = confusion * (1 - np.eye(len(confusion)))
    order = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind='stable')
    order = order[labelled[order] > 0]
    if not order.size:
        return None
    chosen = np.sort(order[:_MOST_CLASSES])
    kept = confusion[np.ix_(chosen, chosen)]
    others = labelled[chosen] - kept.sum(1)
    names = [results.classes[k] for k in chosen]
    columns = names + (['others'] if others.any() else [])
    pixels = np.hstack([kept, others[:, None]])[:, :len(columns)]
    rows = [(int(chosen[row]), name, [_cell(name, column, amount, labelled[chosen[row]],
                          'right' if row == place else 'others' if place == len(names) else '')
                    for place, (column, amount) in enumerate(zip(columns, pixels[row]))])
            for row, name in enumerate(names)]
    which = f'The {count_of(len(chosen), "class")} of the ground truth'
    if len(chosen) < len(order):
        which = (f'The {len(chosen)} classes with the most wrong pixels, of {len(order)} in the '
                 'ground truth')
    return Matrix(f'Confusion matrix{run}', f'{which}. A row shows where the pixels of a true '
                  'class went, in percent of them; on the diagonal they are right, which is the '
                  f'accuracy of the class. Shares below {percent(_VISIBLE)} % are left blank.',
                  columns, rows)


def _cell(name: str, column: str, pixels: float, total: float, kind: str) -> MatrixCell:
    share = float(pixels / total)
    visible = share >= _VISIBLE
    verb = 'is found' if kind == 'right' else f'is taken for {column}'
    return MatrixCell(share ** .5 if visible else 0, percent(share, 0) if visible else '',
                      f'{name} {verb}: {percent(share, 2)} % of its {number(total)} pixels, '
                      f'{number(pixels)}', kind)
