"""The package where mmcv and mmseg are not installed: what needs them says so, in one line.

Networks, windows and files of weights need neither, nor does ``mmseg_custom.deploy``. All else
trains and tests. A library that is installed, but broken, raises its own error.
"""
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType

PACKAGE = __name__.partition('.')[0]
TRAINING = ('mmcv', 'mmseg')
WAY_OUT = ("pip install 'mmcv-full==1.7.2' 'mmsegmentation==0.30.0' (README.md says how mmcv-full "
           f'builds everywhere); {PACKAGE}.deploy works without them')


def missing_libraries() -> list[str]:
    """Returns which of mmcv and mmseg are not installed."""
    return [name for name in TRAINING if find_spec(name) is None]


def explain_missing_libraries() -> None:
    """Lets modules of this package that lack a library say how it is installed."""
    sys.meta_path.insert(0, ExplainingFinder())


class ExplainingFinder(MetaPathFinder):
    """Finds the modules of this package, for :class:`ExplainingLoader`."""

    def find_spec(self, name: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """Finds a module as Python does; None for those of other packages."""
        if not name.startswith(f'{PACKAGE}.'):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = ExplainingLoader(spec.loader.name, spec.loader.path)
        return spec


class ExplainingLoader(SourceFileLoader):
    """Runs a module, and explains the error if a library is missing for it."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs a module.

        Raises:
            ModuleNotFoundError: If a library that it imports is not installed.
        """
        try:
            super().exec_module(module)
        except ModuleNotFoundError as error:
            library = (error.name or PACKAGE).partition('.')[0]
            if library == PACKAGE:
                raise
            raise ModuleNotFoundError(
                f'{module.__name__} needs {library}, which is not installed. Training and testing '
                f'need {" and ".join(TRAINING)}: {WAY_OUT}', name=error.name) from None
