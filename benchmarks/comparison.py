"""What got slower between two runs, by more than the noise of their repeated samples."""
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, quantiles

from .results import Results, Row
from .tables import WIDTH, format_samples

LEAST = 0.02  # share that never counts as a change
LOAD = 'load_average'  # it differs between any two runs
UNKNOWN = 0.05  # noise that is assumed of a row with one sample


@dataclass(frozen=True)
class Change:
    """A row in both runs.

    Attributes:
        name: Name of the benchmark and title of the row.
        old: Row of the old run.
        new: Row of the new run.
    """
    name: str
    old: Row
    new: Row

    @property
    def worse_by(self) -> float:
        """Share by which the new figure is worse; negative if it is better."""
        old, new = median(self.old.ours), median(self.new.ours)
        if not old or not new:
            return 0.0
        return (old / new if self.old.higher_is_better else new / old) - 1

    @property
    def noise(self) -> float:
        """Share that repeated samples of the two runs differ by."""
        return max(LEAST, spread(self.old.ours) + spread(self.new.ours))

    @property
    def verdict(self) -> str:
        """'slower', 'faster', or '' within the noise; 'worse' and 'better' of what is no speed."""
        unit = self.old.unit
        words = ('slower', 'faster') if unit in ('s', 'ms', 'us') or unit.endswith('/s') else (
            'worse', 'better')
        if abs(self.worse_by) <= self.noise:
            return ''
        return words[self.worse_by < 0]


def spread(samples: list[float]) -> float:
    """Returns how far repeated samples lie apart: their middle half, relative to the median.

    A single sample that another process disturbed does not hide a change.
    """
    if len(samples) < 2:
        return UNKNOWN
    if len(samples) < 4:
        return (max(samples) - min(samples)) / median(samples) if median(samples) else 0.0
    low, _, high = quantiles(samples, n=4, method='inclusive')
    return (high - low) / median(samples) if median(samples) else 0.0


def changes(old: Results, new: Results) -> Iterator[Change]:
    """Yields the rows that both runs have."""
    before = {(case.name, row.title): row for case in old.cases for row in case.rows}
    for case in new.cases:
        for row in case.rows:
            former = before.get((case.name, row.title))
            if former is not None and former.unit == row.unit:
                yield Change(f'{case.name}: {row.title}', former, row)


def compare(old: Results, new: Results) -> tuple[str, bool]:
    """Formats the changes between two runs; says, too, whether something got worse."""
    found = list(changes(old, new))
    lines = [f'old: {old.date}, {old.commit}; new: {new.date}, {new.commit}']
    for kind in ('device', 'tiny', 'machine', 'versions'):
        difference = _difference(getattr(old, kind), getattr(new, kind))
        if difference:
            lines.append(f'! the {kind} differs: {difference}')
    lines.append(f'{"":<{WIDTH}}{"old":>16}{"new":>16}{"worse by":>9}{"noise":>8}')
    for change in found:
        factor = 1 + change.worse_by
        lines.append(f'{change.name[:WIDTH - 1]:<{WIDTH}}'
                     f'{format_samples(change.old.ours, change.old.unit):>16}'
                     f'{format_samples(change.new.ours, change.new.unit):>16}'
                     f'{factor - 1:>+9.1%}{change.noise:>8.1%}  {change.verdict}')
        lines += _changed_references(change)
    alone = {(case.name, row.title) for run in (old, new) for case in run.cases
             for row in case.rows}
    if left := len(alone) - len(found):
        lines.append(f'{left} rows are in one of the runs alone, or have another unit')
    return '\n'.join(lines), any(change.verdict in ('slower', 'worse') for change in found)


def _changed_references(change: Change) -> Iterator[str]:
    """Says which references of a row changed, too: then the machine may have."""
    if not change.verdict:
        return
    for name in (*change.new.references, 'limit'):
        old, new = change.old.samples_of(name), change.new.samples_of(name)
        if old and new and median(old) and abs(by := median(new) / median(old) - 1) > LEAST:
            yield f'    {name}, measured beside it, changed by {by:+.1%}'


def _difference(old: object, new: object) -> str:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f'{old}, then {new}' if old != new else ''
    return ', '.join(f'{key} {old.get(key)}, then {new.get(key)}'
                     for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)
                     and key != LOAD)
