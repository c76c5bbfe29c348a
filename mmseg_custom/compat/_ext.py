"""A stand-in for `mmcv._ext`, the compiled half of `mmcv.ops`, where mmcv-full has none.

MMSegmentation 0.30 imports `mmcv.ops` whenever it is imported, and `mmcv.ops` looks up some
hundred functions in `mmcv._ext` while it is imported. Nothing in this project calls one of them.
So every name can be looked up here, and only the call fails, with the way out.

setup.py installs a copy of this one file as `mmcv/_ext.py`; it therefore imports nothing from
this package. Python prefers an extension module (`_ext.*.so`) to a source file in the same folder,
so an mmcv-full that was built with its ops takes over by itself. It can go when MMSegmentation
1.x or later, which imports the ops only where they are used, replaces 0.30.
"""

_WAY_OUT = (
    'needs mmcv-full built with its ops (a C++ compiler, nvcc for CUDA): MMCV_WITH_OPS=1 '
    'pip install --no-build-isolation --no-deps --force-reinstall --no-cache-dir mmcv-full==1.7.2'
)


def get_compiler_version():
    """Names the C++ compiler of the ops, for mmcv's environment report: there is none."""
    return 'n/a'


def get_compiling_cuda_version():
    """Names the CUDA compiler of the ops, for mmcv's environment report: there is none."""
    return 'n/a'


def __getattr__(name):
    """Returns a function that raises RuntimeError when it is called.

    Raises:
        AttributeError: for dunder names, which Python itself asks modules for.
    """
    if name.startswith('__'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args, **kwargs):
        raise RuntimeError(f'mmcv._ext.{name} {_WAY_OUT}')

    missing.__name__ = missing.__qualname__ = name
    return missing
