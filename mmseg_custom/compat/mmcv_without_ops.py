"""A stand-in for `mmcv._ext`, the compiled half of `mmcv.ops`, where mmcv-full has none.

MMSegmentation 0.30 imports `mmcv.ops` whenever it is imported, and `mmcv.ops` looks up some
hundred functions in `mmcv._ext` while it is imported. Nothing in this project calls one of them.
So every name can be looked up here, and only the call fails, with the way out.

mmseg's own tools import mmseg before this package. So setup.py installs a copy of this file at the
top of site-packages, and beside it `mmcv_without_ops.pth`, which adds the finder below whenever
Python starts: this file therefore imports nothing but what Python has imported by then. The finder
is asked last, so that an mmcv-full that was built with its ops takes over by itself. It can go when
MMSegmentation 1.x or later, which imports the ops only where they are used, replaces 0.30.
"""
import sys

NAME = 'mmcv._ext'
_WAY_OUT = (
    'needs mmcv-full built with its ops (a C++ compiler, nvcc for CUDA): MMCV_WITH_OPS=1 '
    'pip install --no-build-isolation --no-deps --force-reinstall --no-cache-dir mmcv-full==1.7.2'
)


class StandInFinder:
    """Finds the stand-in where nothing else finds `mmcv._ext`; loads it as well."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Returns the spec of the stand-in for its name, None for all others."""
        if name != NAME:
            return None
        from importlib.machinery import ModuleSpec
        # A loader by its methods: importlib.abc would be another import at the start of Python.
        return ModuleSpec(name, StandInFinder, origin=__file__)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec):
        """Returns None: Python makes the module."""

    @staticmethod
    def exec_module(module):
        """Gives the module the functions of the stand-in."""
        module.get_compiler_version = get_compiler_version
        module.get_compiling_cuda_version = get_compiling_cuda_version
        module.__getattr__ = missing_op


def add_finder():
    """Lets Python find the stand-in, after all that it finds by itself. Once is enough."""
    if not any(getattr(finder, '__name__', '') == 'StandInFinder' for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder)


def get_compiler_version():
    """Names the C++ compiler of the ops, for mmcv's environment report: there is none."""
    return 'n/a'


def get_compiling_cuda_version():
    """Names the CUDA compiler of the ops, for mmcv's environment report: there is none."""
    return 'n/a'


def missing_op(name):
    """Returns a function that raises RuntimeError when it is called.

    Raises:
        AttributeError: For dunder names, which Python itself asks modules for.
    """
    if name.startswith('__'):
        raise AttributeError(f'module {NAME!r} has no attribute {name!r}')

    def missing(*args, **kwargs):
        raise RuntimeError(f'{NAME}.{name} {_WAY_OUT}')

    missing.__name__ = missing.__qualname__ = name
    return missing
