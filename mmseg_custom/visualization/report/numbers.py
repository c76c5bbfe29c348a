"""Numbers as the page shows them; also filters of its templates."""
import math
import re
from typing import TypeGuard


def percent(value: float | None, digits: int = 1) -> str:
    """Formats a share of 0..1 in percent; a dash for a missing one."""
    return f'{100 * value:.{digits}f}' if is_known(value) else '–'


def points(value: float | None, digits: int = 2) -> str:
    """Formats a difference in percentage points, with its sign (a true minus)."""
    return f'{100 * value:+.{digits}f}'.replace('-', '−') if is_known(value) else '–'


def number(value: float) -> str:
    """Formats a count with narrow spaces between thousands."""
    return f'{int(value):,}'.replace(',', '\u202f')


def is_known(value: float | None) -> TypeGuard[float]:
    """Returns whether there is a value, rather than None, nan or infinity."""
    return value is not None and math.isfinite(value)


def count_of(count: int, what: str) -> str:
    """Formats a count with its noun: '1 class', '18 classes', '2 000 images'."""
    plural = f'{what}es' if what.endswith('s') else f'{what}s'
    return f'{number(count)} {what if count == 1 else plural}'


def anchor(title: str) -> str:
    """Turns a title into the name that a link in the page leads to."""
    return re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')
