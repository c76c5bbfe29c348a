"""Numbers as the page shows them; also filters of its templates."""
import math


def percent(value: float | None, digits: int = 1) -> str:
    """Formats a share of 0..1 in percent; a dash for a missing one."""
    return '–' if is_missing(value) else f'{100 * value:.{digits}f}'


def points(value: float | None, digits: int = 2) -> str:
    """Formats a difference in percentage points, with its sign (a true minus)."""
    return '–' if is_missing(value) else f'{100 * value:+.{digits}f}'.replace('-', '−')


def number(value: float) -> str:
    """Formats a count with narrow spaces between thousands."""
    return f'{int(value):,}'.replace(',', '\u202f')


def is_missing(value: float | None) -> bool:
    """Whether there is no value: None, nan or infinity."""
    return value is None or not math.isfinite(value)
