"""All that only a GPU can show, in one command: tests, times and memory, in at most 8 minutes.

    make gpu-check
    python benchmarks/gpu_check.py [--parts machine,tests] [--minutes 8] [--out DIR]
    python benchmarks/gpu_check.py --device cpu --tiny          # tries the check itself

Each part runs in a process of its own with a time limit, and writes what it has measured to
DIR/PART.json as it goes on, so that nothing is lost if it or the rest is killed; DIR/summary.json
holds the state of all parts, DIR/log.txt what they printed. A part that fails stops no other; one
for which no time is left is reported as not run. The exit code is 0 if every part ran and nothing
was wrong.

PyTorch is all that the machine needs: what else is missing is taken from build/gpu-packages, which
`make gpu-pack` fills on a machine with a network. docs/gpu.md describes the parts.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / 'build/gpu-packages'
LEAST = 20  # seconds that a part needs to be started
WRONG = 3  # exit code of a part that ran and found something wrong


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        command: Script in benchmarks/gpu, with its arguments.
        limit: Seconds after which it is killed.
    """
    command: tuple[str, ...]
    limit: int


# In the order of what is missed most if the time is not enough. Together they may take longer than
# the check; none is expected to need its limit.
PARTS = {
    'machine': Part(('machine.py',), 60),
    'tests': Part(('tests.py',), 270),
    'linear_probing': Part(('step.py', 'linear_probing'), 75),
    'evaluation': Part(('evaluation.py',), 75),
    # On 80 GB it compiles LowMemoryAdamW's step for each shape of a weight.
    'full_tuning': Part(('step.py', 'full_tuning'), 150),
    'head_tuning': Part(('step.py', 'head_tuning'), 75),
}


@dataclass
class Outcome:
    """What became of a part.

    Attributes:
        part: Name of the part.
        state: 'ok', 'wrong' (it says what), 'failed' (it ended early), 'timed out' or 'not run'.
        seconds: Wall-clock time.
        figures: What it measured.
        flags: What is wrong.
    """
    part: str
    state: str
    seconds: float = 0.0
    figures: dict = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--parts', help=f'parts to run, with commas between; of {",".join(PARTS)}')
    parser.add_argument('--minutes', type=float, default=8.0, help='time for all of it')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/gpu_check',
                        help='folder of the results')
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--tiny', action='store_true',
                        help='tiny networks, and few tests: tries the check')
    args = parser.parse_args()
    args.parts = args.parts.split(',') if args.parts else list(PARTS)
    unknown = sorted(set(args.parts) - set(PARTS))
    if unknown:
        parser.error(f'--parts: unknown {", ".join(unknown)}; expected some of {", ".join(PARTS)}')
    return args


def environment() -> dict[str, str]:
    """Returns the variables of the parts, which find their packages by them.

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


def run(name: str, args: argparse.Namespace, seconds: float) -> Outcome:
    """Runs a part for at most some seconds."""
    part, result = PARTS[name], args.out / f'{name}.json'
    result.unlink(missing_ok=True)
    seconds = min(seconds, part.limit)
    script, *rest = part.command
    command = [sys.executable, str(ROOT / 'benchmarks/gpu' / script), *rest, '--device',
               args.device, '--json', str(result), '--limit', f'{seconds:.0f}']
    if args.tiny:
        command += ['--tiny', '--seconds', '0.2']
    start = time.monotonic()
    with (args.out / 'log.txt').open('a') as log:
        log.write(f'==== {name}: {" ".join(command)}\n')
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT,
                                   env=environment(), start_new_session=True)
        try:
            process.wait(seconds)
            state = {0: 'ok', WRONG: 'wrong'}.get(process.returncode, 'failed')
        except subprocess.TimeoutExpired:
            state = 'timed out'
        finally:  # with all that it started, also if this check is interrupted
            _kill_session(process)
    outcome = Outcome(name, state, time.monotonic() - start)
    if result.exists():
        found = json.loads(result.read_text())
        outcome.figures, outcome.flags = found['figures'], found['flags']
    if outcome.state == 'failed':
        outcome.flags.append(f'exit code {process.returncode}: see log.txt')
    if outcome.state == 'timed out':
        outcome.flags.append(f'killed after {outcome.seconds:.0f} s')
    return outcome


def _kill_session(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def flat(figures: dict, prefix: str = '') -> Iterator[tuple[str, object]]:
    """Yields the figures by dotted names."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from flat(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value


def table(outcomes: list[Outcome]) -> str:
    """Formats all figures, and the state of each part."""
    lines = []
    for outcome in outcomes:
        lines += ['', f'{outcome.part}: {outcome.state}, {outcome.seconds:.0f} s']
        lines += [f'  {name:<44} {value:.4g}' if isinstance(value, float) else
                  f'  {name:<44} {value}' for name, value in flat(outcome.figures)]
        lines += [f'  ! {flag}' for flag in outcome.flags]
    lines += ['', f'{"part":<18}{"state":<12}{"s":>5}']
    lines += [f'{outcome.part:<18}{outcome.state:<12}{outcome.seconds:>5.0f}'
              for outcome in outcomes]
    return '\n'.join(lines)


def main() -> None:
    """Runs the parts, and prints the table; exits with 1 if something is wrong."""
    args = parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit(f'error: no CUDA GPU that PyTorch {torch.__version__} can use; --device cpu '
                 '--tiny tries the check itself')
    environment()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'log.txt').unlink(missing_ok=True)
    end = time.monotonic() + 60 * args.minutes
    outcomes: list[Outcome] = []
    for name in args.parts:
        left = end - time.monotonic()
        if left < LEAST:
            outcomes.append(Outcome(name, 'not run', flags=['no time was left']))
        else:
            print(f'{name} ...', flush=True)
            outcomes.append(run(name, args, left))
        (args.out / 'summary.json').write_text(json.dumps(
            [asdict(outcome) for outcome in outcomes], indent=1))
    print(table(outcomes))
    sys.exit(0 if all(outcome.state == 'ok' for outcome in outcomes) else 1)


if __name__ == '__main__':
    main()
