"""Lets mmcv-full 1.7.2 be built by every Python, without its compiled ops. On PYTHONPATH meanwhile.

    PYTHONPATH=$PWD/scripts/mmcv_build pip install --no-build-isolation --no-deps mmcv-full==1.7.2

Python imports this file by its name at the start of each process. It can go with mmcv-full.
"""
import builtins
import sys
from types import CodeType

run = builtins.exec


def run_in_caller(code: str | bytes | CodeType, *namespaces, **options) -> None:
    """Does what ``exec`` does; what the code defines is in the ``locals()`` of the caller.

    The set-up of mmcv-full reads its version that way, which Python 3.13 ended (PEP 667).
    """
    if not namespaces and not options:
        caller = sys._getframe(1)
        namespaces = caller.f_globals, caller.f_locals
    run(code, *namespaces, **options)


builtins.exec = run_in_caller
# The set-up compiles the ops where it can import PyTorch: a quarter of an hour, for what no recipe
# calls. MMCV_WITH_OPS=0 would leave them out too, and name the package mmcv.
sys.modules['torch'] = None  # type: ignore[assignment]
