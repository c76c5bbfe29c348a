"""Runs the fast tests on several versions of Python, PyTorch, NumPy and OpenCV, each by itself.

    python scripts/test_matrix.py [CELL ...] [--keep] [--fetch-python] [--tests PATH ...]

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / 'requirements' / 'matrix.yaml'
BUILD = ROOT / 'build' / 'matrix'
DISK = 9  # GiB of an environment and its downloads
# The pages, the set-up, the benchmarks and the recipes as text do not depend on versions.
OTHER_TESTS = ('tests/docs', 'tests/benchmarks', 'tests/configs', 'tests/test_packaging.py',
               'tests/test_matrix.py')
LINT = ('ruff', 'mypy')
NO_WHEEL = re.compile(r'has no wheels|no version of|No solution found|No matching distribution|'
                      r'Could not find a version|ResolutionImpossible|is unsatisfiable')
NO_INDEX = re.compile(r'error sending request|Failed to fetch|ConnectionError|NewConnectionError|'
                      r'Max retries exceeded|Temporary failure in name resolution|dns error', re.I)


class Skipped(Exception):
    """A cell cannot be tested here; the message is the reason."""


class Failed(Exception):
    """A cell cannot be set up, for a reason of this project or of the machine."""


@dataclass
class Cell:
    """A row of the table.

    Attributes:
        name: Its name.
        python: Version of Python, such as 3.10.
        packages: Requirements in the place of those of requirements/runtime.txt and test.txt.
        without: Names of packages that are left out: optional ones, which do not go together there.
        optional: Whether the packages of test.txt are installed, which are optional.
        tests: Files and folders of tests; empty: all that depend on versions.
    """

    name: str
    python: str
    packages: Sequence[str] = ()
    without: Sequence[str] = ()
    optional: bool = True
    tests: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """Folder of the environment."""
        return BUILD / self.name

    @property
    def log(self) -> Path:
        """File of what is printed."""
        return BUILD / f'{self.name}.log'

    @property
    def interpreter(self) -> Path:
        """Python of the environment."""
        return self.folder / 'bin' / 'python'


@dataclass
class Result:
    """What came of a cell: passed, failed or skipped, and the reason or pytest's last line."""

    outcome: str
    words: str


def read_table(path: Path = TABLE) -> dict[str, Cell]:
    """Reads the cells by name."""
    rows = yaml.safe_load(path.read_text(encoding='utf-8'))
    return {name: Cell(name, **row) for name, row in rows.items()}


def requirements_of(cell: Cell) -> list[str]:
    """Lists what is installed for a cell, but for OpenMMLab's packages and this one."""
    environment = {**default_environment(), 'python_version': cell.python,
                   'python_full_version': f'{cell.python}.0'}
    wanted = {canonicalize_name(Requirement(line).name): line for line in cell.packages}
    wanted.setdefault('torchvision', 'torchvision')
    for name in ('runtime', 'test'):
        for line in requirement_lines(ROOT / 'requirements' / f'{name}.txt'):
            requirement = Requirement(line)
            package = canonicalize_name(requirement.name)
            if package in (*LINT, *cell.without) or (
                    name == 'test' and not cell.optional and package != 'pytest'):
                continue
            if requirement.marker is None or requirement.marker.evaluate(environment):
                wanted.setdefault(package, f'{requirement.name}{requirement.specifier}')
    return list(wanted.values())


def requirement_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a requirements file without comments and options."""
    for line in path.read_text(encoding='utf-8').splitlines():
        line = line.partition('#')[0].strip()
        if line and not line.startswith('-'):
            yield line


def find_python(version: str, fetch: bool = False) -> str:
    """Finds an interpreter on the PATH, in pyenv's folder or among uv's own.

    Args:
        version: Its version, such as 3.10.
        fetch: Whether uv may download one.

    Raises:
        Skipped: If there is none.
    """
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv')) / 'versions'
    found = sorted(map(str, pyenv.glob(f'{version}*/bin/python')))
    for path in (f'python{version}', sys.executable, *found):
        if answers(path, 'import sys; print("%d.%d" % sys.version_info[:2])') == version:
            return path  # a shim of pyenv is on the PATH even for versions that are not there
    if shutil.which('uv'):
        options = [] if fetch else ['--no-python-downloads']
        managed = subprocess.run(['uv', 'python', 'find', '--managed-python', *options, version],
                                 capture_output=True, text=True)
        if managed.returncode == 0:
            return managed.stdout.strip()
    raise Skipped(f"no Python {version} on the PATH, among pyenv's or uv's")


def answers(python: str, code: str) -> str:
    """Returns what an interpreter prints, or an empty text where it does not run."""
    try:
        return subprocess.run([python, '-c', code], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ''


def make_environment(cell: Cell, fetch: bool) -> None:
    """Makes the environment of a cell; one that is there in full is kept.

    Raises:
        Skipped: If an interpreter, a wheel, disk or the network is missing.
        Failed: If something else is wrong.
    """
    packages = requirements_of(cell)
    stamp, contents = cell.folder / 'matrix.stamp', '\n'.join([cell.python, *packages])
    if stamp.is_file() and stamp.read_text() == contents:
        return
    shutil.rmtree(cell.folder, ignore_errors=True)
    python = find_python(cell.python, fetch)
    free = shutil.disk_usage(BUILD).free / 2**30
    if free < DISK:
        raise Skipped(f'{free:.0f} GiB of disk are free, {DISK} are needed')
    uv = shutil.which('uv')
    call(cell, [uv, 'venv', '--python', python, cell.folder] if uv
         else [python, '-m', 'venv', cell.folder])
    install(cell, '--only-binary', ':all:', *packages)
    # As in scripts/setup_env.sh. mmcv-full is built here: it has no wheels.
    of_build = {'PYTHONPATH': str(ROOT / 'scripts' / 'mmcv_build')}
    install(cell, '--no-deps', '--no-build-isolation', '-r', 'requirements/openmmlab.txt',
            **of_build)
    install(cell, '--no-deps', '--no-build-isolation', '--editable', '.')
    stamp.write_text(contents)


def install(cell: Cell, *arguments: str, **environment: str) -> None:
    """Installs packages into the environment of a cell, by uv or pip."""
    if uv := shutil.which('uv'):
        command = [uv, 'pip', 'install', '--python', cell.interpreter, '--compile-bytecode']
    else:
        command = [cell.interpreter, '-m', 'pip', 'install', '--use-pep517']
    # A cell names its versions: limits that a machine sets for others would contradict them.
    call(cell, [*command, *arguments], PIP_CONSTRAINT='', PIP_DISABLE_PIP_VERSION_CHECK='1',
         **environment)


def call(cell: Cell, command: Sequence[object], **environment: str) -> None:
    """Runs a command of the set-up, and tells what is missing here from what is wrong.

    Raises:
        Skipped: If a wheel or the network is missing.
        Failed: If it fails for another reason.
    """
    with open(cell.log, 'a', encoding='utf-8') as log:
        start = log.tell()
        log.flush()
        code = subprocess.run(list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL,
                              env={**os.environ, **environment}, stdout=log,
                              stderr=subprocess.STDOUT).returncode
    if code == 0:
        return
    with open(cell.log, encoding='utf-8', errors='replace') as log:
        log.seek(start)
        words = log.read()
    if NO_INDEX.search(words):
        raise Skipped('the package index does not answer')
    if missing := NO_WHEEL.search(words):
        line = next(line for line in words.splitlines() if missing.group() in line)
        raise Skipped(f'no wheel: {line.strip()[:150]}')
    raise Failed(f'set-up failed: {(words.strip().splitlines() or [str(code)])[-1].strip()[:150]}')


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
    lines = cell.log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
    return Result('passed' if code == 0 else 'failed', lines[-1].strip('= ') if lines else '')


def run_cell(cell: Cell, options: argparse.Namespace) -> Result:
    """Makes the environment of a cell, tests in it, and removes it when the tests have passed."""
    cell.log.write_text('')
    try:
        make_environment(cell, options.fetch_python)
    except Skipped as reason:
        shutil.rmtree(cell.folder, ignore_errors=True)
        return Result('skipped', str(reason))
    except Failed as reason:
        return Result('failed', f'{reason} ({cell.log.relative_to(ROOT)})')
    found = run_tests(cell, options.tests)
    if found.outcome == 'passed' and not options.keep:
        shutil.rmtree(cell.folder)
    if found.outcome == 'failed':
        found.words += f' ({cell.log.relative_to(ROOT)})'
    return found


def describe(cell: Cell) -> str:
    """Names the versions of a cell in a few words."""
    names = ('torch', 'numpy', 'opencv-python-headless', 'timm', 'transformers')
    versions = {Requirement(line).name: str(Requirement(line).specifier).removeprefix('==')
                for line in requirements_of(cell)}
    return ', '.join([f'Python {cell.python}', *(
        f'{name.removesuffix("-python-headless")} {versions[name]}' for name in names
        if name in versions)])


def main() -> int:
    """Tests in the cells that the command line names, and prints a table."""
    cells = read_table()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cells', nargs='*', metavar='CELL',
                        help=f'rows of requirements/matrix.yaml: {", ".join(cells)}; default: all')
    parser.add_argument('--keep', action='store_true', help='keep environments of passed tests')
    parser.add_argument('--fetch-python', action='store_true',
                        help='let uv download an interpreter that is missing')
    parser.add_argument('--tests', nargs='+', default=[], metavar='PATH',
                        help='files or folders of tests in the place of those of the table')
    options = parser.parse_args()
    if unknown := set(options.cells) - set(cells):
        parser.error(f'no such cell: {", ".join(sorted(unknown))}; there are {", ".join(cells)}')
    BUILD.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in options.cells or cells:
        print(f'{name}: {describe(cells[name])}', flush=True)
        start = time.monotonic()
        results[name] = run_cell(cells[name], options)
        minutes = (time.monotonic() - start) / 60
        print(f'{name}: {results[name].outcome}, {results[name].words} [{minutes:.1f} min]',
              flush=True)
    width = max(map(len, results))
    print('\n' + '\n'.join(f'{name:{width}}  {found.outcome:7}  {found.words}'
                           for name, found in results.items()))
    return int(any(found.outcome == 'failed' for found in results.values()))


if __name__ == '__main__':
    sys.exit(main())
