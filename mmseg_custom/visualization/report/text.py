"""Small pieces of HTML: escaped text, numbers, bars, colours."""
import html
import math
from collections.abc import Sequence

import numpy as np

escape = html.escape


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 0..1 in percent; a dash where there is none."""
    return '–' if _missing(value) else f'{100 * value:.{digits}f}'


def points(value: float | None, digits: int = 2) -> str:
    """A difference in percentage points, with its sign (a true minus)."""
    return '–' if _missing(value) else f'{100 * value:+.{digits}f}'.replace('-', '−')


def number(value: float) -> str:
    """A count with narrow spaces between thousands."""
    return f'{int(value):,}'.replace(',', '\u202f')


def size(count: float) -> str:
    """Bytes in the unit that people read."""
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if count < 1024 or unit == 'GiB':
            return f'{count:.0f} {unit}' if unit in ('B', 'KiB') else f'{count:.1f} {unit}'
        count /= 1024


def swatch(colour: Sequence[int]) -> str:
    """A small square of a class's colour."""
    return f'<span class="swatch" style="background:rgb({",".join(map(str, colour))})"></span>'


def cell(value: float | None, text: str, kind: str = 'number') -> str:
    """A cell of a table that sorts by its value; without one it comes last."""
    key = '' if _missing(value) else f'{value:.6g}'
    return f'<td class="{kind}" data-value="{key}">{text}</td>'


def barred(value: float | None, drawn: str, text: str) -> str:
    """A cell with a bar and the number of it, the numbers below each other."""
    return cell(value, f'{drawn}<span class="value">{text}</span>', 'number barred')


def head(columns: Sequence[tuple[str, str]], descending: str) -> str:
    """The head of a table, each column a button that sorts: (name, explanation).

    `descending` names the column by which the rows are sorted.
    """
    cells = ''.join(f'<th scope="col" aria-sort="{"descending" if name == descending else "none"}">'
                    f'<button type="button" title="{escape(why)}">{escape(name)}</button></th>'
                    for name, why in columns)
    return f'<thead><tr>{cells}</tr></thead>'


def bar(value: float | None, ends: Sequence[float] | None = None) -> str:
    """A bar from 0 to a value of 0..1, with a line from one end of its interval to the other."""
    if _missing(value):
        return ''
    line = ''
    if ends is not None and np.isfinite(ends).all():
        line = f'<i class="range" style="left:{100 * ends[0]:.2f}%;width:{_width(ends)}%"></i>'
    return (f'<span class="bar" aria-hidden="true"><i style="width:{100 * value:.2f}%"></i>{line}'
            '</span>')


def two_sided_bar(value: float | None, ends: Sequence[float], scale: float) -> str:
    """A bar to the left (worse) or right (better) of the middle; `scale` fills a half."""
    if _missing(value) or scale <= 0:
        return ''
    low, high = (np.clip(np.array(sorted((0, value))) / scale, -1, 1) + 1) / 2
    kind = 'better' if value > 0 else 'worse'
    line = ''
    if np.isfinite(ends).all():
        ends = (np.clip(np.asarray(ends) / scale, -1, 1) + 1) / 2
        line = f'<i class="range" style="left:{100 * ends[0]:.2f}%;width:{_width(ends)}%"></i>'
    return (f'<span class="bar two" aria-hidden="true"><i class="{kind}" style="left:'
            f'{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>{line}</span>')


def _width(ends: Sequence[float]) -> str:
    return f'{max(0.6, 100 * (ends[1] - ends[0])):.2f}'


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
