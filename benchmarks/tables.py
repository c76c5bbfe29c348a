"""Tables for the screen, and the forms that figures have there and on the page."""
import math
from statistics import median

from .results import LIMIT, CaseResult, Row, Target

WIDTH = 52  # characters of a title
DIGITS = 4  # significant digits of a number below 1000


def format_number(value: float) -> str:
    """Formats a number with four digits at most, never with an exponent."""
    if value == 0 or abs(value) >= 1000 or not math.isfinite(value):
        return f'{value:,.0f}'
    before = math.floor(math.log10(abs(value))) + 1  # digits before the point; negative: zeros
    text = f'{value:.{min(9, max(1, DIGITS - before))}f}'
    return text.rstrip('0').rstrip('.')


def format_samples(samples: list[float], unit: str = '') -> str:
    """Formats the median of samples; empty where there are none."""
    return f'{format_number(median(samples))} {unit}'.strip() if samples else ''


def format_target(target: Target) -> str:
    """Formats what is expected."""
    what = 'the limit' if target.reference == LIMIT else target.reference
    if target.kind == 'within':
        return f'{what} ± {target.value:.0%}'
    sign = {'at least': '≥', 'at most': '≤'}[target.kind]
    times = '' if target.reference == LIMIT else ' x'
    return f'{sign} {target.value:g}{times} of {what}'


def format_verdict(row: Row, target: Target) -> str:
    """Formats a target with what was measured of it."""
    reached = row.reaches(target)
    if reached is None:
        return f'{format_target(target)}: not measured'
    measured = row.measure_of(target)
    shown = f'{measured:.1%} off' if target.kind == 'within' else f'{measured:.3g}'
    return f'{format_target(target)}: {shown}, {"reached" if reached else "missed"}'


def format_row(row: Row) -> str:
    """Formats a row: ours, then a line for each comparison."""
    lines = [f'  {row.title:<{WIDTH}} {format_samples(row.ours, row.unit):>16}']
    for name, samples in [*row.references.items(), *([(LIMIT, row.limit)] if row.limit else [])]:
        label = 'limit, and our share' if name == LIMIT else name
        lines.append(f'    {label:<{WIDTH - 2}} {format_samples(samples, row.unit):>16}'
                     f'{row.ratio(name):>8.2f}' + ('' if name == LIMIT else ' x'))
    lines += [f'    {format_verdict(row, target)}' for target in row.targets]
    return '\n'.join(lines)


def format_profile(title: str, profile: dict) -> str:
    """Formats the profile of an iteration."""
    figures = ', '.join(f'{name.replace("_", " ")} '
                        + (format_number(value) if isinstance(value, float) else str(value))
                        for name, value in profile.items() if not isinstance(value, dict))
    lines = [f'  profile of {title}: {figures}']
    lines += [f'    {name[:WIDTH]:<{WIDTH}} {milliseconds:>10.3f} ms'
              for name, milliseconds in profile.get('longest_ms', {}).items()]
    return '\n'.join(lines)


def format_case(case: CaseResult) -> str:
    """Formats the state of a case and what is wrong."""
    missed = sum(row.reaches(target) is False for row in case.rows for target in row.targets)
    line = f'{case.name:<22}{case.state:<12}{case.seconds:>5.0f} s'
    line += f'{len(case.rows):>4} rows' + (f', {missed} targets missed' if missed else '')
    return '\n'.join([line, *(f'  ! {flag}' for flag in case.flags)])
