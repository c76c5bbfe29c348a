"""Runs cases one after the other, each in a process of its own with a time limit.

A case that fails, hangs or is killed stops no other and keeps the rows that it has written. The
results are written after each case, so that nothing is lost if the whole run is killed.
"""
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .registry import Benchmark
from .results import CaseResult, Results, case_of, write_results
from .tables import format_case

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / 'build/gpu-packages'
LEAST = 20  # seconds that a case needs to be started


@dataclass(frozen=True)
class Settings:
    """How the cases of a run are measured.

    Attributes:
        device: 'cuda' or 'cpu'.
        out: Folder of the results.
        minutes: Time for all cases.
        tiny: Whether sizes are tiny.
        seconds: Time that the samples of one callable take.
        against: Another checkout of the project.
    """
    device: str
    out: Path
    minutes: float
    tiny: bool = False
    seconds: float = 4.0
    against: Path | None = None


def environment() -> dict[str, str]:
    """Returns the variables of the cases, which find their packages by them.

    Raises:
        SystemExit: If a package is missing here and in build/gpu-packages.
    """
    paths = [ROOT, ROOT / 'tests', *filter(None, [os.environ.get('PYTHONPATH')])]
    if find_spec('mmcv') is None:
        if not PACKAGES.is_dir():
            sys.exit(f'error: mmcv is not installed, and {PACKAGES} is not there: run `make '
                     'gpu-pack` where .venv is, and copy that folder here')
        paths.append(PACKAGES)  # found before the machine's own packages
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, paths)), 'PYTHONUNBUFFERED': '1',
            'CUBLAS_WORKSPACE_CONFIG': ':4096:8'}  # read when cuBLAS starts


def describe_machine(device: str | None) -> dict:
    """Asks a process for the device, if none is given, and for hardware and versions.

    Raises:
        SystemExit: If the device cannot be used; the process has said why.
    """
    command = [sys.executable, '-m', 'benchmarks.machine', *filter(None, [device])]
    done = subprocess.run(command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(1)
    return json.loads(done.stdout.splitlines()[-1])


def commit() -> str:
    """Returns the commit of this checkout, with a plus sign if files differ from it."""
    def git(*words: str) -> str:
        done = subprocess.run(['git', *words], cwd=ROOT, text=True, capture_output=True)
        return done.stdout.strip() if done.returncode == 0 else ''
    try:
        head = git('rev-parse', '--short', 'HEAD')
        return (head + ('+' if git('status', '--porcelain') else '')) or 'unknown'
    except OSError:
        return 'unknown'


def result_path(folder: Path, machine: dict, tiny: bool) -> Path:
    """Returns a new file for a run: FOLDER/MACHINE_DATE.json."""
    name = re.sub(r'[^a-z0-9]+', '-', re.sub(r'\(.*?\)', '', str(machine['name'])).lower())
    stem = f'{name.strip("-")}_{time.strftime("%Y-%m-%d_%H%M%S", time.gmtime())}'
    return folder / f'{"tiny_" if tiny else ""}{stem}.json'


def run_cases(benchmarks: Sequence[Benchmark], settings: Settings, results: Results,
              path: Path) -> None:
    """Runs cases and adds each to the results, which are written after it."""
    end = time.monotonic() + 60 * settings.minutes
    for number, one in enumerate(benchmarks, 1):
        left = end - time.monotonic()
        print(f'\n{one.name} ({number} of {len(benchmarks)}): {one.title}', flush=True)
        if settings.device not in one.devices:
            found = CaseResult(one.name, one.title, 'skipped',
                               flags=[f'runs on {" and ".join(one.devices)} alone'])
        elif left < LEAST:
            found = CaseResult(one.name, one.title, 'not run', flags=['no time was left'])
        else:
            found = run_case(one, settings, min(left, 60 * one.minutes))
        results.cases.append(found)
        write_results(path, results)
    print('\n' + '\n'.join(format_case(case) for case in results.cases))


def run_case(one: Benchmark, settings: Settings, limit: float) -> CaseResult:
    """Runs a case for at most some seconds."""
    part = settings.out / f'{one.name}.case.json'
    part.unlink(missing_ok=True)
    command, start = command_of(one, settings, limit, part), time.monotonic()
    with (settings.out / 'log.txt').open('a') as log:
        log.write(f'==== {one.name}: {" ".join(command)}\n')
        code = _watch(command, limit, log)
    found = case_of(json.loads(part.read_text())) if part.exists() else CaseResult(
        one.name, one.title)
    part.unlink(missing_ok=True)
    found.seconds = round(time.monotonic() - start, 1)
    if code is None:
        found.state = 'timed out'
        found.flags.append(f'killed after {found.seconds:.0f} s')
    elif code != 0 and found.state not in ('wrong', 'failed'):
        found.state = 'failed'
        found.flags.append(f'exit code {code}: see {settings.out / "log.txt"}')
    return found


def command_of(one: Benchmark, settings: Settings, limit: float, part: Path) -> list[str]:
    """Returns the command line of a case that writes its result to a file."""
    command = [sys.executable, '-m', 'benchmarks.worker', one.name, '--device', settings.device,
               '--seconds', str(settings.seconds), '--limit', f'{limit:.0f}', '--json', str(part)]
    command += ['--tiny'] * settings.tiny
    return command + (['--against', str(settings.against)] if settings.against else [])


def _watch(command: list[str], limit: float, log) -> int | None:
    """Runs a command whose output is shown and logged; returns its code, None if it was killed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, text=True,
                               env=environment(), start_new_session=True)

    def copy() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end='', flush=True)
            log.write(line)

    reader = threading.Thread(target=copy, daemon=True)
    reader.start()
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        code = None
    finally:  # with all that it started, also if this run is interrupted
        _kill_session(process)
    reader.join(5)
    return code


def _kill_session(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
