"""What a run of benchmarks writes: one JSON file, whole after every case.

    format    1
    command, date, commit, device, tiny
    machine   hardware: name, memory, cores, driver (machine.py)
    versions  of Python, PyTorch, mmcv and others
    cases     a list; each with its state, seconds, flags (what is wrong), facts, profiles and rows

A row compares samples of one quantity, in its unit: ours, each reference, and the limit.
"""
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

FORMAT = 1
LIMIT = 'limit'  # name of the limit among the references of a target
STATES = ('ok', 'wrong', 'failed', 'timed out', 'skipped', 'not run')
# Units that values in seconds, bytes and FLOP/s are shown in; others are shown as they are.
UNITS = {'s': 1., 'ms': 1e-3, 'us': 1e-6, 'KiB': 2. ** 10, 'MiB': 2. ** 20, 'GiB': 2. ** 30,
         'GB': 1e9, 'GFLOP/s': 1e9, 'TFLOP/s': 1e12, 'GB/s': 1e9, 'TB/s': 1e12}


@dataclass(frozen=True)
class Target:
    """What the ratio of a row is expected to be.

    Attributes:
        kind: 'at least' (ours is so many times better than the reference), 'at most' (ours costs so
            many times the reference) or 'within' (ours deviates by such a share).
        reference: Name of the reference, or ``LIMIT``.
        value: Number that it is compared with.
    """
    kind: str
    reference: str
    value: float


@dataclass
class Row:
    """Samples of one quantity: ours, and what it is compared with.

    Attributes:
        title: What was measured; unique in its case.
        unit: Unit of all samples.
        ours: Samples.
        references: Samples by the name of the reference.
        limit: Samples of what cannot be surpassed; empty without one.
        targets: Expectations.
        higher_is_better: Whether the quantity is a rate.
        notes: What a reader has to know.
    """
    title: str
    unit: str
    ours: list[float]
    references: dict[str, list[float]] = field(default_factory=dict)
    limit: list[float] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    higher_is_better: bool = False
    notes: str = ''

    def samples_of(self, reference: str) -> list[float]:
        """Returns the samples of a reference, or of the limit."""
        return self.limit if reference == LIMIT else self.references.get(reference, [])

    def ratio(self, reference: str) -> float:
        """Returns how many times better ours is than a reference; of the limit, the share."""
        ours, other = median(self.ours), median(self.samples_of(reference))
        return _quotient(ours, other) if self.higher_is_better else _quotient(other, ours)

    def measure_of(self, target: Target) -> float:
        """Returns the number that a target is compared with."""
        ratio = self.ratio(target.reference)
        if target.kind == 'at least':
            return ratio
        cost = _quotient(1, ratio)
        return cost if target.kind == 'at most' else abs(cost - 1)

    def reaches(self, target: Target) -> bool | None:
        """Says whether a target is reached; None where its reference was not measured."""
        if not self.ours or not self.samples_of(target.reference):
            return None
        measured = self.measure_of(target)
        return measured >= target.value if target.kind == 'at least' else measured <= target.value


@dataclass
class CaseResult:
    """What became of a case.

    Attributes:
        name: Name of the benchmark.
        title: What it measures.
        state: One of ``STATES``.
        seconds: Wall-clock time.
        flags: What is wrong, or why it was skipped.
        missing: Rows that could not be measured here: title -> reason.
        facts: Further figures by name.
        profiles: Profile of one iteration by its title.
        rows: Rows.
    """
    name: str
    title: str
    state: str = 'ok'
    seconds: float = 0.0
    flags: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    profiles: dict[str, dict] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


@dataclass
class Results:
    """A run of benchmarks.

    Attributes:
        command: Command line.
        date: Day and time of its start, in UTC.
        commit: Commit of the checkout, with a plus sign if files differ from it.
        device: 'cuda' or 'cpu'.
        tiny: Whether sizes were tiny, so that figures say nothing.
        machine: Hardware.
        versions: Versions of what computes.
        cases: Cases in their order.
        format: Version of this format.
    """
    command: str
    date: str
    commit: str
    device: str
    tiny: bool
    machine: dict[str, object]
    versions: dict[str, str]
    cases: list[CaseResult] = field(default_factory=list)
    format: int = FORMAT


def to_unit(values: Sequence[float] | float | None, unit: str) -> list[float]:
    """Converts one or several values from seconds, bytes or FLOP/s to a unit."""
    if values is None:
        return []
    several = [values] if isinstance(values, (int, float)) else list(values)
    return [float(value) / UNITS.get(unit, 1.) for value in several]


def write_json(path: Path, content: object) -> None:
    """Writes a file whole, so that a process that is killed leaves the former one.

    The process that starts the cases has not imported mmseg_custom, with its ``files``: the
    packages that this needs may be missing on a machine with a GPU.
    """
    part = path.with_name(path.name + '.part')
    part.write_text(json.dumps(content, indent=1) + '\n')
    os.replace(part, path)


def write_results(path: Path, results: Results) -> None:
    """Writes a run."""
    write_json(path, asdict(results))


def case_of(content: dict) -> CaseResult:
    """Reads a case from the content of a file."""
    rows = [Row(**{**row, 'targets': [Target(**target) for target in row['targets']]})
            for row in content['rows']]
    return CaseResult(**{**content, 'rows': rows})


def read_results(path: Path) -> Results:
    """Reads a run.

    Raises:
        SystemExit: If it is no file of results.
    """
    try:
        content = json.loads(path.read_text())
        if content['format'] != FORMAT:
            sys.exit(f'error: {path}: format {content["format"]}, expected {FORMAT}: measure again')
        return Results(**{**content, 'cases': [case_of(case) for case in content['cases']]})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(f'error: {path}: {error!r}; expected a file that `python -m benchmarks` wrote')


def _quotient(a: float, b: float) -> float:
    return a / b if b else math.inf
