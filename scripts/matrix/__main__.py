"""Runs the fast tests on several versions of Python, PyTorch, NumPy and OpenCV, each by itself.

    python scripts/matrix [CELL ...] [--jobs N] [--keep] [--fetch-python] [--tests PATH ...]

A cell is a row of requirements/matrix.yaml. Its environment is made by uv where that is installed,
by venv and pip elsewhere, and removed when its tests have passed. Output goes to a log, one line a
cell to the screen. A cell without an interpreter or without wheels is skipped, with the reason.

build/matrix/
  NAME/      the environment of a cell
  NAME.log   all that was printed while it was made, and by its tests
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cells import BUILD, ROOT, Cell, describe, read_table
from environments import Failed, Skipped, make_environment, pick_python

# The pages, the set-up, the benchmarks and the recipes as text do not depend on versions.
OTHER_TESTS = ('tests/docs', 'tests/benchmarks', 'tests/configs', 'tests/test_packaging.py',
               'tests/test_matrix.py')
SUMMARY = re.compile(r'\b\d+ (passed|failed|errors?|skipped|deselected)\b|no tests ran')


@dataclass
class Result:
    """What came of a cell: passed, failed or skipped, and the reason or pytest's last line."""

    outcome: str
    words: str


def run_tests(cell: Cell, tests: Sequence[str]) -> Result:
    """Runs tests in the environment of a cell."""
    left_out = [f'--ignore={path}' for path in OTHER_TESTS]
    command = [cell.interpreter, '-m', 'pytest', '-q', '-rs', '--tb=short',
               '-p', 'no:cacheprovider', *(tests or cell.tests or left_out)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT),
                   'PATH': f'{cell.folder / "bin"}{os.pathsep}{os.environ.get("PATH", "")}'}
    with open(cell.log, 'a', encoding='utf-8') as log:
        code = subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, stdout=log,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).returncode
    # Libraries may write more lines as their process ends.
    lines = [line for line in cell.log.read_text(encoding='utf-8', errors='replace').splitlines()
             if SUMMARY.search(line)]
    return Result('passed' if code == 0 else 'failed', lines[-1].strip('= ') if lines else '')


def run_cell(cell: Cell, options: argparse.Namespace) -> Result:
    """Tests in a cell, and prints a line about it."""
    start = time.monotonic()
    found = make_and_test(cell, options)
    minutes = (time.monotonic() - start) / 60
    print(f'{cell.name}: {found.outcome}, {found.words} [{minutes:.1f} min]', flush=True)
    return found


def make_and_test(cell: Cell, options: argparse.Namespace) -> Result:
    """Makes the environment of a cell, tests in it, and removes it when the tests have passed."""
    cell.log.write_text('')
    try:
        version, python = pick_python(cell, options.fetch_python)
        print(f'{cell.name}: {describe(cell, version)}', flush=True)
        make_environment(cell, version, python)
    except Skipped as reason:
        shutil.rmtree(cell.folder, ignore_errors=True)
        return Result('skipped', str(reason))
    except Failed as reason:
        return Result('failed', f'{reason} ({os.path.relpath(cell.log, ROOT)})')
    found = run_tests(cell, options.tests)
    if found.outcome == 'passed' and not options.keep:
        shutil.rmtree(cell.folder)
    if found.outcome == 'failed':
        found.words += f' ({os.path.relpath(cell.log, ROOT)})'
    return found


def main() -> int:
    """Tests in the cells that the command line names, and prints a table."""
    cells = read_table()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cells', nargs='*', metavar='CELL',
                        help=f'rows of requirements/matrix.yaml: {", ".join(cells)}; default: all')
    parser.add_argument('--jobs', type=int, default=1, metavar='N',
                        help='cells at a time, each on one core; default: 1')
    parser.add_argument('--keep', action='store_true', help='keep environments of passed tests')
    parser.add_argument('--fetch-python', action='store_true',
                        help='let uv download an interpreter that is missing')
    parser.add_argument('--tests', nargs='+', default=[], metavar='PATH',
                        help='files or folders of tests in the place of those of the table')
    options = parser.parse_args()
    if unknown := set(options.cells) - set(cells):
        parser.error(f'no such cell: {", ".join(sorted(unknown))}; there are {", ".join(cells)}')
    BUILD.mkdir(parents=True, exist_ok=True)
    names = options.cells or list(cells)
    with ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(lambda name: run_cell(cells[name], options), names)
        results = dict(zip(names, found))
    width = max(map(len, results))
    print('\n' + '\n'.join(f'{name:{width}}  {found.outcome:7}  {found.words}'
                           for name, found in results.items()))
    return int(any(found.outcome == 'failed' for found in results.values()))


if __name__ == '__main__':
    sys.exit(main())
