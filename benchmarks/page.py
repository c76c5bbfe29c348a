"""docs/performance.md, generated from the files in benchmarks/results.

A machine has a section: each row in its newest file, and what no file of the machine has.
"""
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .execution import ROOT
from .registry import Benchmark, find_benchmarks
from .results import CaseResult, Results, Row, read_results
from .tables import format_number, format_samples, format_target, format_verdict

PAGE, FILES = ROOT / 'docs/performance.md', ROOT / 'benchmarks/results'
INTRODUCTION = Path(__file__).with_name('page_introduction.md')
HEADER = ('| | ours | reference | its figure | ratio | target | run |',
          '|---|---|---|---|---|---|---|')


@dataclass
class Machine:
    """All that was measured on machines of one kind.

    Attributes:
        name: Name of the GPU, or of the CPU with its cores.
        device: 'cuda' or 'cpu'.
        runs: Runs, the oldest first.
        rows: Newest row and the number of its run, by the names of the case and of the row.
        missing: Why a row could not be measured in the newest run of its case, by the same names.
        profiles: Newest profile by the names of the case and of the iteration.
    """
    name: str
    device: str
    runs: list[Results] = field(default_factory=list)
    rows: dict[tuple[str, str], tuple[Row, int]] = field(default_factory=dict)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    profiles: dict[tuple[str, str], dict] = field(default_factory=dict)

    def add(self, run: Results) -> None:
        """Adds a run that is newer than those before."""
        self.runs.append(run)
        for case in run.cases:
            self._add(case, len(self.runs))

    def _add(self, case: CaseResult, number: int) -> None:
        for row in case.rows:
            self.rows[case.name, row.title] = row, number
            self.missing.pop((case.name, row.title), None)
        for title, reason in case.missing.items():
            if (case.name, title) not in self.rows:
                self.missing[case.name, title] = reason
        for title, profile in case.profiles.items():
            self.profiles[case.name, title] = profile


def name_of(run: Results) -> str:
    """Returns the name that runs of one kind of machine share."""
    if run.device == 'cuda':
        return str(run.machine['name'])
    return f'{run.machine["name"]}, {run.machine["cores"]} cores'


def read_machines(folder: Path) -> list[Machine]:
    """Reads all files of results, by machine: those with a GPU first.

    Raises:
        SystemExit: For results of tiny sizes, which say nothing.
    """
    runs = []
    for path in sorted(folder.glob('*.json')):
        runs.append(read_results(path))
        if runs[-1].tiny:
            sys.exit(f'error: {path} was measured with --tiny: it is no measurement')
    machines: dict[tuple[str, str], Machine] = {}
    for run in sorted(runs, key=lambda run: run.date):
        key = run.device, name_of(run)
        machines.setdefault(key, Machine(key[1], key[0])).add(run)
    return sorted(machines.values(), key=lambda one: (one.device != 'cuda', one.name))


def generate(folder: Path, benchmarks: Mapping[str, Benchmark]) -> str:
    """Returns the page."""
    machines = read_machines(folder)
    known = {device: {key for one in machines if one.device == device
                      for key in (*one.rows, *one.missing)} for device in ('cuda', 'cpu')}
    lines = [INTRODUCTION.read_text()]
    for machine in machines:
        lines += _section(machine, benchmarks, known[machine.device])
    for device, name in (('cuda', 'a GPU'), ('cpu', 'a CPU')):
        if not any(machine.device == device for machine in machines):
            lines += [f'## Nothing was measured on {name}', '']
    return '\n'.join(lines).rstrip() + '\n'


def _section(machine: Machine, benchmarks: Mapping[str, Benchmark],
             known: set[tuple[str, str]]) -> Iterator[str]:
    yield from (f'## {machine.name}', '', *_runs(machine), '')
    for name, one in benchmarks.items():
        titles = [title for case, title in machine.rows if case == name]
        if not titles:
            continue
        yield from (f'### {one.title}', '', f'`python -m benchmarks {name}`', '', *HEADER)
        for title in titles:
            yield from _lines_of(*machine.rows[name, title])
        yield ''
        profiles = {title: profile for (case, title), profile in machine.profiles.items()
                    if case == name}
        yield from _profiles(profiles)
    yield from _never_measured(machine, benchmarks, known)


def _runs(machine: Machine) -> Iterator[str]:
    yield '| run | date, UTC | commit | command | machine | versions |'
    yield '|---|---|---|---|---|---|'
    for number, run in enumerate(machine.runs, 1):
        versions = [f'{key} {value}' for key, value in run.versions.items()]
        yield (f'| {number} | {run.date} | {run.commit} | `{run.command}` | {_about(run)} | '
               f'{", ".join(versions)} |')


def _about(run: Results) -> str:
    """Describes a machine in a few words."""
    about = run.machine
    words = [f'{about["gpu_memory_gib"]} GiB, driver {about["driver"]}'
             if run.device == 'cuda' else '', f'{about["cpu"]}' if 'cpu' in about else '',
             f'{about["threads"]} threads' if 'threads' in about else '',
             f'{about["memory_gib"]} GiB of main memory' if 'memory_gib' in about else '',
             f'load average {about["load_average"]}' if 'load_average' in about else '']
    return ', '.join(filter(None, words))


def _lines_of(row: Row, number: int) -> Iterator[str]:
    """Yields a line for each reference of a row."""
    compared = [*row.references, *(['limit'] if row.limit else [])]
    title = row.title + (f' ({row.notes})' if row.notes else '')
    ours = format_samples(row.ours, row.unit)
    if not compared:
        yield f'| {title} | {ours} | | | | | {number} |'
    for position, name in enumerate(compared):
        verdicts = '; '.join(format_verdict(row, target) for target in row.targets
                             if target.reference == name)
        ratio = f'{row.ratio(name):.2f}' + ('' if name == 'limit' else ' x')
        first = position == 0
        yield (f'| {title if first else ""} | {ours if first else ""} | '
               f'{name if name != "limit" else "the limit"} | '
               f'{format_samples(row.samples_of(name), row.unit)} | {ratio} | {verdicts} | '
               f'{number if first else ""} |')
    for target in row.targets:
        if target.reference not in compared:
            yield f'| | | {format_target(target)} | not measured | | | |'


def _profiles(profiles: Mapping[str, dict]) -> Iterator[str]:
    if not profiles:
        return
    yield from ('| one iteration | ms | kernels or operators | copied between host and device | '
                'idle | host waits |', '|---|---|---|---|---|---|')
    for title, profile in profiles.items():
        count = profile.get('kernels', profile.get('operators', ''))
        copied = f'{profile["copied_bytes"] / 1e6:.1f} MB' if 'copied_bytes' in profile else ''
        idle = f'{profile["idle_share"]:.1%}' if 'idle_share' in profile else ''
        waits = f'{profile["host_waits"]:g}' if 'host_waits' in profile else ''
        yield (f'| {title} | {format_number(profile.get("ms", 0.0))} | {count:,} | {copied} | '
               f'{idle} | {waits} |')
    yield ''


def _never_measured(machine: Machine, benchmarks: Mapping[str, Benchmark],
                    known: set[tuple[str, str]]) -> Iterator[str]:
    """Yields what was never measured on such a machine: whole cases, and rows of others."""
    measured = {case for case, _ in machine.rows}
    lines = [f'- `{name}`: {one.title}' for name, one in benchmarks.items()
             if machine.device in one.devices and name not in measured and name != 'tests']
    rows: Sequence[tuple[str, str]] = sorted(
        key for key in known - set(machine.rows) if key[0] in measured)
    for case, title in rows:
        reason = machine.missing.get((case, title))
        lines.append(f'- `{case}`, {title}' + (f': {reason}' if reason else ''))
    if lines:
        yield from ('### Never measured on such a machine', '', *lines, '')


def main(check: bool) -> int:
    """Writes the page, or says whether it is what the files give; returns the exit code."""
    text = generate(FILES, find_benchmarks())
    if not check:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print(f'{PAGE} is not what benchmarks/results gives: python -m benchmarks page')
    return 1
