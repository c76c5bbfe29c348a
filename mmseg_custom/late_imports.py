"""Lets packages, and libraries, import others only when they use them: half of a start's time.

``timm.layers`` imports torchvision, and ``timm`` all its models. What was imported before stays as
it is.
"""
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from types import ModuleType


class StandIn(ModuleType):
    """A module that another one holds in the place of the real one, which it asks for attributes.

    It is found as an import only within :func:`standing_in`, and there until it is used.
    """

    _is_closed = False  # A package is asked for its path by `from PACKAGE import MODULE`, too.

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(self.__name__) is self:
            if name.startswith('_') and (name != '__path__' or self._is_closed):
                # inspect and mmcv.device.npu look for such names in all modules.
                raise AttributeError(name)
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def standing_in(*names: str, closed: bool = False) -> Iterator[None]:
    """Gives what is imported within stand-ins for modules.

    Args:
        names: Names of modules, those of packages before those of their modules.
        closed: Whether the packages have no other modules within than those of ``names``.
    """
    stand_ins = {name: StandIn(name) for name in names if name not in sys.modules}
    for stand_in in stand_ins.values():
        stand_in._is_closed = closed
    for name, stand_in in stand_ins.items():
        package, _, last = name.rpartition('.')
        if package in stand_ins:
            setattr(stand_ins[package], last, stand_in)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


class LatePackage(ModuleType):
    """A package whose ``__init__.py`` runs at the first look for a name that it has not.

    ``__path__`` is such a name as well, which Python looks for to import a module of the package.
    """
    _lock = RLock()
    _is_late = True

    def __getattr__(self, name: str) -> object:
        with self._lock:
            if self._is_late:
                self._run()
        if name in vars(self):
            return vars(self)[name]
        raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

    def _run(self) -> None:
        package = sys.modules.get(self.__name__.rpartition('.')[0])
        if isinstance(package, LatePackage) and package._is_late:
            package._run()  # as Python would, and that may import this one
        spec = self.__spec__
        if not self._is_late or spec is None or spec.loader is None:
            return
        self._is_late = False  # also for what looks for a name meanwhile
        self.__path__ = list(spec.submodule_search_locations or ())
        try:
            spec.loader.exec_module(self)
        except BaseException:
            self._is_late = True
            del self.__path__
            raise


def import_alone(packages: Sequence[str], modules: Sequence[str]) -> None:
    """Imports modules of packages, which are late ones from then on.

    Does nothing if the packages are imported, or not installed.

    Args:
        packages: Names of a package and those in it, from the outermost on.
        modules: Names of the modules, with those of their packages.
    """
    if packages[0] in sys.modules or importlib.util.find_spec(packages[0]) is None:
        return
    late = []
    for name in packages:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__class__ = LatePackage
        sys.modules[name] = module
        late.append(module)
        package, _, last = name.rpartition('.')
        if package:
            setattr(sys.modules[package], last, module)
    for name in modules:
        importlib.import_module(name)
    for module in late:
        del module.__path__


def late_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Returns the ``__getattr__`` of a package that imports its modules when a name is asked for.

    Args:
        package: Name of the package.
        modules: Names of its modules, each with the names that the package has of it.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(importlib.import_module(f'{package}.{module_of[name]}'), name)

    return __getattr__


def import_timm_layers() -> None:
    """Lets timm's layers come one by one, without torchvision and timm's models."""
    import_alone(('timm', 'timm.layers'), ('timm.layers.drop', 'timm.layers.mlp',
                                           'timm.layers.norm'))
