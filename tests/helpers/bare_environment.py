"""An environment of a few libraries: links to what they and their dependencies installed here.

It is the one of exported segmentors: without mmcv, mmseg, and what comes with them.
"""
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from helpers.commands import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LIBRARIES = ('torch', 'torchvision', 'timm', 'safetensors', 'numpy', 'Pillow', 'huggingface_hub')


class BareEnvironment:
    """A folder of links, and Python with this folder in the place of its site-packages.

    Args:
        folder: Folder that is filled; it must not exist.
        libraries: Names of the libraries on PyPI, with which come those that they require.
        package: Whether ``mmseg_custom`` is there, that of this checkout.
    """

    def __init__(self, folder: Path, libraries: Iterable[str] = LIBRARIES, package: bool = True):
        self.folder = folder
        folder.mkdir()
        for one in required(libraries):
            for name in top_level(one):
                link = folder / name
                if not link.exists():
                    link.symlink_to(one.locate_file(name))
        if package:
            (folder / 'mmseg_custom').symlink_to(ROOT / 'mmseg_custom')

    def python(self, *arguments: object, code: int = 0, timeout: int = 300, cwd: Path | None = None,
               **env: str) -> str:
        """Runs Python, checks its exit code and returns all that it printed.

        Args:
            arguments: Arguments of Python: a script and its own, or '-c' and code.
            code: Expected exit code.
            timeout: Seconds.
            cwd: Working folder; default: that of the environment.
            **env: Environment variables.
        """
        inherited = {name: value for name, value in os.environ.items()
                     if not name.startswith('PYTHON')}
        done = subprocess.run(  # -S: no site-packages, -s: none of the user
            [sys.executable, '-S', '-s', *map(str, arguments)], cwd=cwd or self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
            env={**inherited, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(self.folder),
                 'PYTHONDONTWRITEBYTECODE': '1', **env})
        assert done.returncode == code, f'exit code {done.returncode}\n{done.stdout[-5000:]}'
        return done.stdout


def required(libraries: Iterable[str]) -> list[Distribution]:
    """Returns libraries that are installed, and those that they require without extras."""
    found: dict[str, Distribution] = {}
    left = list(libraries)
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # required by a library that is installed without it
            continue
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({'extra': ''}):
                left.append(requirement.name)
    return list(found.values())


def top_level(library: Distribution) -> set[str]:
    """Returns the names of a library's files and folders in site-packages."""
    names = {file.parts[0] for file in library.files or ()}
    return names - {'..', '__pycache__'}
