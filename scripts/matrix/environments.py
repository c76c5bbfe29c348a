"""Environments of cells: an interpreter, and packages by uv or pip."""
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cells import ROOT, Cell, requirements_of

DISK = 9  # GiB of an environment and its downloads
NO_WHEEL = re.compile(r'has no wheels|no version of|No solution found|No matching distribution|'
                      r'Could not find a version|ResolutionImpossible|is unsatisfiable')
NO_INDEX = re.compile(r'error sending request|Failed to fetch|ConnectionError|NewConnectionError|'
                      r'Max retries exceeded|Temporary failure in name resolution|dns error', re.I)


class Skipped(Exception):
    """A cell cannot be tested here; the message is the reason."""


class Failed(Exception):
    """A cell cannot be set up, for a reason of this project or of the machine."""


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


def pick_python(cell: Cell, fetch: bool) -> tuple[str, str]:
    """Finds the interpreter of a cell: its version and path.

    Raises:
        Skipped: If there is none.
    """
    versions = [cell.python] if isinstance(cell.python, str) else cell.python
    for version in versions[:-1]:
        try:
            return version, find_python(version, fetch)
        except Skipped:
            continue
    return versions[-1], find_python(versions[-1], fetch)


def make_environment(cell: Cell, version: str, python: str) -> None:
    """Makes the environment of a cell; one that is there in full is kept.

    Args:
        cell: The cell.
        version: Version of its Python.
        python: Path of an interpreter of that version.

    Raises:
        Skipped: If a wheel, disk or the network is missing.
        Failed: If something else is wrong.
    """
    packages = requirements_of(cell, version)
    stamp, contents = cell.folder / 'matrix.stamp', '\n'.join([version, *packages])
    if stamp.is_file() and stamp.read_text() == contents:
        return
    shutil.rmtree(cell.folder, ignore_errors=True)
    free = shutil.disk_usage(cell.folder.parent).free / 2**30
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
    call(cell, [*command, *arguments], PIP_CONSTRAINT=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK='1',
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
