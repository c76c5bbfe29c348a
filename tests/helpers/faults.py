"""Wrong inputs by the hundred: each must end right, or in one line, within bounds.

A case writes its input into a folder of its own; a tool runs on it in a fork, within bounds; what
went wrong is told by kinds.
"""
import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from helpers.commands import ROOT
from helpers.zygote import Zygote

SECONDS = 60  # of a case that takes less than one: the machine may be busy
MEMORY = 3 << 29  # bytes of addresses, beyond those of the libraries
CANARY = 'canary'  # file that code in an input would make
LONGEST_LINE = 3000  # characters; the lists of known keys are long


@dataclass(frozen=True)
class Outcome:
    """What a tool did with an input.

    Attributes:
        code: Exit code; -N for a tool that was killed by signal N.
        text: All that was printed.
        folder: Folder of the case.
        report: Lines on what the tool must not do.
    """
    code: int
    text: str
    folder: Path
    report: list[str]

    @property
    def last(self) -> str:
        """The last line, without what torch's handler of signals puts in front."""
        return (self.text.strip().splitlines() or [''])[-1].lstrip('\0')


Check = Callable[[Outcome], str | None]


@dataclass(frozen=True)
class Case:
    """A wrong input.

    Attributes:
        name: What is wrong.
        make: Writes the input into a folder, and returns the words of the command.
        check: Says what is wrong with a run that ended with 0; None: nothing can be.
        must_fail: Whether to end with 0 is wrong by itself.
        must_pass: Whether to end otherwise is.
        asks_memory: Whether the input itself asks for more memory than there is, in so many words.
        bounds: Further settings of its bounds: see :mod:`helpers.guarded`.
        ranks: Number of processes.
    """
    name: str
    make: Callable[[Path], list]
    check: Check = lambda outcome: None
    must_fail: bool = False
    must_pass: bool = False
    asks_memory: bool = False
    bounds: dict = field(default_factory=dict)
    ranks: int = 1


@dataclass
class Figures:
    """What was tried, and what went wrong, over all tests."""
    inputs: int = 0
    refused: int = 0
    labels: int = 0
    kills: int = 0
    machines: int = 0  # full disks, stopped ranks ...
    wrong: Counter = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """Returns the line at the end of `make test-faults`."""
        kinds = ('traceback', 'hang', 'memory', 'crash', 'outside', 'code', 'unclear', 'accepted',
                 'wrong labels', 'wrong result', 'lost files')
        found = ', '.join(f'{self.wrong[kind]} {kind}' for kind in kinds)
        return (f'faults: {self.inputs} wrong inputs ({self.refused} refused in one line), '
                f'{self.labels} label maps compared, {self.kills} kills, {self.machines} faults of '
                f'the machine: {found}; {time.monotonic() - self.began:.0f} s')


FIGURES = Figures()


def judge(case: Case, outcome: Outcome) -> tuple[str, str] | None:
    """Returns what went wrong: (kind, detail); None if the case ended as it must."""
    code, text, last = outcome.code, outcome.text, outcome.last
    outside = [line for line in outcome.report if not line.startswith('ran: ')]
    if (outcome.folder / CANARY).exists() or len(outside) < len(outcome.report):
        return 'code', '; '.join(outcome.report) or 'code in the input was run'
    if outside:
        return 'outside', '; '.join(outside)
    if code == -14:
        return 'hang', last
    if code == -9 or not case.asks_memory and (
            'MemoryError' in text or "can't allocate memory" in text):
        return 'memory', last
    if code < 0:
        return 'crash', f'signal {-code}: {last}'
    if 'Traceback (most recent call last)' in text:
        return 'traceback', last
    if code:
        if not ('error: ' in last or last.startswith('error')) or len(last) > LONGEST_LINE:
            return 'unclear', f'code {code}: {last}'
        return ('wrong result', last) if case.must_pass else None
    if case.must_fail:
        return 'accepted', last
    wrong = case.check(outcome)
    return ('wrong result', wrong) if wrong else None


class Machine:
    """Runs cases, as many at a time as there are CPUs.

    Args:
        root: Folder of the cases' folders.
        workers: Number of cases at a time.
    """

    def __init__(self, root: Path, workers: int | None = None):
        self.root = root
        self.workers = workers or min(len(os.sched_getaffinity(0)), 4)
        self._zygotes = [Zygote() for _ in range(self.workers)]
        self._free = list(self._zygotes)
        self._lock = threading.Lock()
        self._number = 0

    def close(self) -> None:
        for zygote in self._zygotes:
            zygote.close()

    def run(self, cases: Iterable[Case], only: str | None = None) -> list[str]:
        """Runs cases; returns a line for each that went wrong."""
        chosen = [case for case in cases if not only or only in case.name]
        with ThreadPoolExecutor(self.workers) as pool:
            return [line for line in pool.map(self._try, chosen) if line]

    def _try(self, case: Case) -> str | None:
        with self._lock:
            self._number += 1
            folder = self.root / f'case{self._number}'
            zygote = self._free.pop()
        try:
            folder.mkdir()
            outcome = run_guarded(zygote, folder, case.make(folder), ranks=case.ranks,
                                  **case.bounds)
            wrong = judge(case, outcome)
        finally:
            with self._lock:
                self._free.append(zygote)
        FIGURES.inputs += 1
        FIGURES.refused += wrong is None and outcome.code > 0
        if wrong is None:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        FIGURES.wrong[wrong[0]] += 1
        line = f'{wrong[0]:10} {case.name}: {wrong[1][:300]}'
        with open(self.root / 'wrong.txt', 'a') as file:
            file.write(f'{folder.name} {line}\n')
        return line


def run_guarded(zygote: Zygote, folder: Path, command: list, seconds: int = SECONDS,
                ranks: int = 1, **settings: object) -> Outcome:
    """Runs a tool in bounds: see :mod:`helpers.guarded`.

    Args:
        zygote: Process that forks.
        folder: Folder of the case, in which alone the tool may write.
        command: Name of the tool and its arguments.
        seconds: Seconds after which it counts as hanging.
        ranks: Number of processes; the first that fails gives the exit code.
        **settings: Further settings of the bounds.
    """
    processes, read = start_guarded(zygote, folder, command, seconds, ranks, **settings)
    codes = [zygote.wait(process) for process in processes]
    return read(next((code for code in codes if code), 0))


def start_guarded(zygote: Zygote, folder: Path, command: list, seconds: int = SECONDS,
                  ranks: int = 1, **settings: object
                  ) -> tuple[list[int], Callable[[int], Outcome]]:
    """Starts a tool in bounds; returns the processes of its ranks, and what reads the outcome."""
    bounds, log, report = (folder / name for name in ('bounds.json', 'log.txt', 'report.txt'))
    bounds.write_text(json.dumps(dict(
        {'folder': str(folder), 'report': str(report), 'memory': MEMORY}, **settings)))
    tool, *words = command
    processes = zygote.start(log, 'tests/helpers/guarded.py', bounds, ROOT / 'tools' / tool, *words,
                             cwd=folder, limit=seconds, ranks=ranks)

    def read(code: int) -> Outcome:
        lines = report.read_text().splitlines() if report.exists() else []
        return Outcome(code, log.read_text(errors='replace'), folder, lines)
    return processes, read


def damaged(data: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yields a file with each of many kinds of damage, at random places: (what, content)."""
    size = len(data)
    yield 'empty', b''
    yield 'one byte', data[:1]
    for share in (.1, .5, .9, .999):
        yield f'cut to {share}', data[:int(share * size)]
    yield 'cut by a byte', data[:-1]
    yield 'more at the end', data + bytes(rng.randbytes(100))
    yield 'more in front', bytes(7) + data
    yield 'zeros', bytes(size)
    yield 'noise', rng.randbytes(size)
    yield 'a hole of zeros', (lambda at: data[:at] + bytes(len(data[at:at + size // 8]))
                              + data[at + size // 8:])(rng.randrange(size))
    yield 'text', b'<html>404 not found</html>\n' * 20
    for where, start, end in (('front', 0, min(200, size)), ('middle', size // 4, 3 * size // 4),
                              ('end', max(0, size - 200), size)):
        for _ in range(4):
            at, bit = rng.randrange(start, end), 1 << rng.randrange(8)
            changed = bytearray(data)
            changed[at] ^= bit
            yield f'bit {bit} of byte {at} of {size} ({where})', bytes(changed)
        at = rng.randrange(start, end)
        yield f'bytes from {at} of {size} swapped ({where})', (
            data[:at] + data[at:at + 8][::-1] + data[at + 8:])
