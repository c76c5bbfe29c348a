"""One thing that the doctor found."""
from collections.abc import Iterable
from dataclasses import asdict, dataclass

FAULT, WARNING = 'fault', 'warning'
MAX_SUBJECTS = 20  # names that a finding keeps of those it is about


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and the way out.

    Attributes:
        level: 'fault' (the run would fail or be worth little) or 'warning'.
        part: 'config', 'data', 'weights', 'environment' or 'memory'.
        message: What was found and what was expected.
        way_out: What to do.
        subjects: The files or keys that it is about, the first ``MAX_SUBJECTS`` of them.
        count: How many there are.
    """
    level: str
    part: str
    message: str
    way_out: str
    subjects: tuple[str, ...] = ()
    count: int = 0

    def line(self) -> str:
        """The finding in one line."""
        where = self.subjects[0] if self.subjects else ''
        more = f' (and {self.count - 1} more)' if self.count > 1 else ''
        return f'{where}{more}: {self.message}; {self.way_out}' if where else (
            f'{self.message}; {self.way_out}')

    def as_dict(self) -> dict:
        """The finding for --json."""
        return asdict(self)


def fault(part: str, message: str, way_out: str, subjects: str | Iterable[str] = ()) -> Finding:
    """A finding that stops a run."""
    return _finding(FAULT, part, message, way_out, subjects)


def warning(part: str, message: str, way_out: str, subjects: str | Iterable[str] = ()) -> Finding:
    """A finding that a user should know and may live with."""
    return _finding(WARNING, part, message, way_out, subjects)


def _finding(level: str, part: str, message: str, way_out: str,
             subjects: str | Iterable[str]) -> Finding:
    subjects = [subjects] if isinstance(subjects, str) else list(subjects)
    return Finding(level, part, message, way_out, tuple(map(str, subjects[:MAX_SUBJECTS])),
                   len(subjects))
