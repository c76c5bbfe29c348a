"""Cells of requirements/matrix.yaml: their versions, and what is installed for them."""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / 'requirements' / 'matrix.yaml'
BUILD = ROOT / 'build' / 'matrix'
LINT = ('ruff', 'mypy')
NAMED = ('torch', 'numpy', 'opencv-python-headless', 'timm', 'transformers')


@dataclass
class Cell:
    """A row of the table.

    Attributes:
        name: Its name.
        python: Version of Python, such as 3.10, or several: the first that is there.
        packages: Requirements in the place of those of requirements/runtime.txt and test.txt.
        without: Names of packages that are left out: optional ones, which do not go together there.
        optional: Whether the packages of test.txt are installed, which are optional.
        tests: Files and folders of tests; empty: all that depend on versions.
    """

    name: str
    python: str | list[str]
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


def read_table(path: Path = TABLE) -> dict[str, Cell]:
    """Reads the cells by name."""
    rows = yaml.safe_load(path.read_text(encoding='utf-8'))
    return {name: Cell(name, **row) for name, row in rows.items()}


def requirements_of(cell: Cell, version: str) -> list[str]:
    """Lists what is installed for a cell, but for OpenMMLab's packages and this one.

    Args:
        cell: The cell.
        version: Version of its Python.
    """
    environment = {**default_environment(), 'python_version': version,
                   'python_full_version': f'{version}.0'}
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


def describe(cell: Cell, version: str) -> str:
    """Names the versions of a cell in a few words."""
    versions = {Requirement(line).name: str(Requirement(line).specifier).removeprefix('==')
                for line in requirements_of(cell, version)}
    return ', '.join([f'Python {version}', *(
        f'{name.removesuffix("-python-headless")} {versions[name]}' for name in NAMED
        if name in versions)])
