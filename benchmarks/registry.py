"""The benchmarks that there are: one for each file of cases/, which are read, not imported.

A case is a function with the decorator :func:`benchmark`. Its arguments are literals, so that a
list of all cases takes no import of PyTorch.
"""
import ast
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import Context

CASES = Path(__file__).with_name('cases')
DEVICES = ('cuda', 'cpu')
DECORATOR = 'benchmark'


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, as its decorator describes it.

    Attributes:
        name: Name of its file.
        title: What it measures, in one line.
        minutes: Time after which it is stopped.
        devices: Devices that it can run on.
        suite: Devices on which it is a part of a run that names no benchmarks.
        order: Position in such a run; what is missed most if time runs out has a low number.
    """
    name: str
    title: str
    minutes: float = 1.0
    devices: tuple[str, ...] = DEVICES
    suite: tuple[str, ...] = DEVICES
    order: int = 50


def benchmark(title: str, **settings: Any) -> Callable:
    """Marks the function of a file that is its case, a function of a :class:`Context`.

    Args:
        title: What is measured, in one line.
        **settings: Further fields of :class:`Benchmark`, as literals.
    """
    def mark(case: Callable[['Context'], None]) -> Callable[['Context'], None]:
        case.benchmark = Benchmark(  # type: ignore[attr-defined]
            case.__module__.rpartition('.')[2], title, **settings)
        return case
    return mark


def find_benchmarks(folder: Path = CASES) -> dict[str, Benchmark]:
    """Reads the benchmarks of a folder, in the order of a run: name -> benchmark."""
    found = [_read(path) for path in sorted(folder.glob('[!_]*.py'))]
    return {one.name: one for one in sorted(found, key=lambda one: (one.order, one.name))}


def load_case(name: str) -> Callable[['Context'], None]:
    """Imports the file of a benchmark; returns its case."""
    module = importlib.import_module(f'{__package__}.cases.{name}')
    return next(value for value in vars(module).values() if hasattr(value, 'benchmark'))


def _read(path: Path) -> Benchmark:
    decorators = [node for function in ast.parse(path.read_text()).body
                  if isinstance(function, ast.FunctionDef) for node in function.decorator_list
                  if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == DECORATOR]
    if len(decorators) != 1:
        sys.exit(f'error: {path} has {len(decorators)} functions with @{DECORATOR}; expected one')
    title, = (ast.literal_eval(node) for node in decorators[0].args)
    settings = {word.arg: ast.literal_eval(word.value) for word in decorators[0].keywords}
    return Benchmark(path.stem, title, **settings)
