"""A fault or a warning of the doctor."""
from collections.abc import Iterable
from dataclasses import dataclass

FAULT, WARNING = 'fault', 'warning'
MAX_SUBJECTS = 20  # files or keys that a finding lists


@dataclass(frozen=True)
class Finding:
    """A problem, what it concerns, and the way out.

    Attributes:
        level: 'fault' (the run would fail, or its result be of little use) or 'warning'.
        part: 'config', 'data', 'weights', 'environment' or 'memory'.
        message: Value found and value expected.
        way_out: What to do.
        subjects: Files or config keys that are concerned, at most ``MAX_SUBJECTS`` of them.
        count: Number of all that are concerned.
    """
    level: str
    part: str
    message: str
    way_out: str
    subjects: tuple[str, ...] = ()
    count: int = 0

    def line(self) -> str:
        """Formats the finding in one line."""
        more = f' (and {self.count - 1} more)' if self.count > 1 else ''
        subject = f'{self.subjects[0]}{more}: ' if self.subjects else ''
        return f'{subject}{self.message}; {self.way_out}'


def fault(part: str, message: str, way_out: str, subjects: str | Iterable[str] = ()) -> Finding:
    """Creates a finding that stands in the way of a run."""
    return _finding(FAULT, part, message, way_out, subjects)


def warning(part: str, message: str, way_out: str, subjects: str | Iterable[str] = ()) -> Finding:
    """Creates a finding that does not stand in the way of a run."""
    return _finding(WARNING, part, message, way_out, subjects)


def _finding(level: str, part: str, message: str, way_out: str,
             subjects: str | Iterable[str]) -> Finding:
    subjects = [subjects] if isinstance(subjects, str) else list(subjects)
    return Finding(level, part, message, way_out, tuple(map(str, subjects[:MAX_SUBJECTS])),
                   len(subjects))
