"""The package where mmcv and mmseg are not installed: what needs them says so, in one line.

Networks, windows and files of weights need neither, nor does ``mmseg_custom.deploy``. All else
trains and tests. A library that is installed, but broken, raises its own error.
"""
import os.path as osp
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType

PACKAGE = __name__.partition('.')[0]
# Each with a folder that mmcv 2 and mmseg 1 do not have, nor what an uninstallation left behind.
TRAINING = dict(mmcv='runner', mmseg='core')
DEPLOYED = dict(torch='torch', timm='timm', safetensors='safetensors', PIL='Pillow', numpy='numpy')


def missing_libraries() -> list[str]:
    """Returns which of mmcv 1 and mmseg 0 are not installed."""
    return [name for name, part in TRAINING.items() if not _has_folder(name, part)]


def _has_folder(library: str, part: str) -> bool:
    spec = find_spec(library)
    folders = spec.submodule_search_locations if spec is not None else None
    return any(osp.isdir(osp.join(folder, part)) for folder in folders or ())


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
            if error.name is None or error.name.partition('.')[0] == PACKAGE:
                raise
            raise ModuleNotFoundError(f'{module.__name__} needs {error.name}, which is not '
                                      f'installed{_advice(error.name)}', name=error.name) from None


def _advice(name: str) -> str:
    """Returns how a missing module is installed, as the end of a sentence."""
    library = name.partition('.')[0]
    if library in DEPLOYED:
        return f': pip install {DEPLOYED[library]}'
    return (". Training and testing need mmcv 1.7 and mmseg 0.30: pip install 'mmcv-full==1.7.2' "
            "'mmsegmentation==0.30.0' (README.md says how mmcv-full builds everywhere); "
            f'{PACKAGE}.deploy works without them')
