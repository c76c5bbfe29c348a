"""What a case is given: its settings, clocks, and where its rows go."""
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from . import timing
from .results import LIMIT, CaseResult, Row, Target, to_unit, write_json
from .tables import format_profile, format_row

TINY_SECONDS = 0.1
RESERVE = 5.0  # seconds that a case needs to end


class Skipped(Exception):
    """A case cannot be measured here; the message says why."""


def at_least(reference: str, value: float) -> Target:
    """Expects ours to be so many times better than a reference, or this share of ``LIMIT``."""
    return Target('at least', reference, value)


def at_most(reference: str, value: float) -> Target:
    """Expects ours to cost at most so many times what a reference does."""
    return Target('at most', reference, value)


def within(reference: str, share: float) -> Target:
    """Expects ours to deviate from a reference by such a share at most."""
    return Target('within', reference, share)


@dataclass
class Context:
    """Settings and results of one case.

    Attributes:
        result: What was measured so far.
        device: 'cuda' or 'cpu'.
        tiny: Whether networks and images are to be tiny, so that the case is tried in seconds.
        seconds: Time that all samples of a callable take together.
        deadline: Time of ``time.monotonic`` at which the case is killed.
        against: Another checkout of the project, to be compared with.
        path: File that the result is written to after every row.
    """
    result: CaseResult
    device: str
    tiny: bool = False
    seconds: float = 4.0
    deadline: float = float('inf')
    against: Path | None = None
    path: Path | None = None
    _samples: dict = field(default_factory=dict, repr=False)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == 'cuda'

    def time_left(self) -> float:
        """Returns the seconds until the case is killed, less a few to end."""
        return self.deadline - RESERVE - time.monotonic()

    def measure(self, work: timing.Work, seconds: float | None = None, rounds: int = 5,
                warm_up: int = 2, clock: str = 'wall') -> dict[str, list[float]]:
        """Measures callables in turns; returns samples in seconds a call, by name.

        Arguments are those of :func:`timing.measure_in_turns`. Tiny, there are two rounds.
        """
        if self.tiny:
            seconds, rounds, warm_up = TINY_SECONDS, min(rounds, 2), min(warm_up, 1)
        return timing.measure_in_turns(
            work, self.device, self.seconds if seconds is None else seconds, rounds, warm_up,
            clock, time.monotonic() + self.time_left())

    def peak_memory(self, work: Callable[[], object]) -> int:
        """Returns the peak bytes of a call: PyTorch's on a GPU, else resident memory's growth."""
        import torch

        from mmseg_custom.peak_memory import begin_measurement, measured_peak
        device = torch.device(self.device)
        timing.synchronize(self.device)
        before = begin_measurement(device)
        work()
        timing.synchronize(self.device)
        return measured_peak(device) - (0 if self.on_gpu else before)

    def profile(self, title: str, step: Callable[[], object], steps: int = 3) -> dict:
        """Profiles iterations of a step, which is warm: kernels, copies, idle share, host waits."""
        from .profiling import profile
        found = profile(step, self.device, 1 if self.tiny else steps)
        self.result.profiles[title] = found
        print(format_profile(title, found), flush=True)
        self._write()
        return found

    def row(self, title: str, unit: str, ours: Sequence[float] | float,
            references: Mapping[str, Sequence[float] | float] | None = None,
            limit: Sequence[float] | float | None = None, targets: Sequence[Target] = (),
            higher_is_better: bool = False, notes: str = '') -> Row:
        """Adds a row, prints it, and writes the results so far.

        Args:
            title: What was measured; unique in the case, and the same on all machines.
            unit: Unit that values are shown in, such as 'ms', 'GiB' or 'images/s'.
            ours: Samples, in seconds, bytes, FLOP/s, or else in ``unit``.
            references: The same by name, such as "the original's way".
            limit: The same of what cannot be surpassed, such as the time at the rate of a product.
            targets: Expectations: :func:`at_least`, :func:`at_most`, :func:`within`. One that is
                missed is shown, and is no failure.
            higher_is_better: Whether the quantity is a rate.
            notes: What a reader has to know.
        """
        found = Row(title, unit, to_unit(ours, unit),
                    {name: to_unit(values, unit) for name, values in (references or {}).items()},
                    to_unit(limit, unit), [] if self.tiny else list(targets), higher_is_better,
                    notes)
        unknown = {target.reference for target in targets} - {LIMIT, *found.references}
        if not found.ours or unknown or title in {row.title for row in self.result.rows}:
            raise ValueError(f'row {title!r}: expected samples, a new title, and references for '
                             f'all targets (unknown: {unknown or "none"})')
        self.result.rows.append(found)
        print(format_row(found), flush=True)
        self._write()
        return found

    def fact(self, **figures: object) -> None:
        """Adds figures that are compared with nothing."""
        self.result.facts.update(figures)
        for name, value in figures.items():
            print(f'  {name}: {value}', flush=True)
        self._write()

    def wrong(self, reason: str) -> None:
        """Says that a result is wrong, such as labels that differ; the run then ends with 1."""
        self.result.flags.append(reason)
        print(f'  ! {reason}', flush=True)
        self._write()

    def missing(self, title: str, reason: str) -> None:
        """Says that a row cannot be measured here, and why."""
        self.result.missing[title] = reason
        print(f'  {title}: not measured, {reason}', flush=True)
        self._write()

    def skip(self, reason: str) -> NoReturn:
        """Ends the case, as one that cannot be measured here."""
        raise Skipped(reason)

    def _write(self) -> None:
        if self.path is not None:
            write_json(self.path, asdict(self.result))
        sys.stdout.flush()
