"""Compilation of kernels for a GPU, and what it needs on the machine."""
import os
import shutil
import sysconfig

from ..errors import InputError


def require_compiler(key: str) -> None:
    """Checks that Triton can compile kernels, for which it builds a small C library for Python.

    Args:
        key: Setting of the config that has kernels compiled, for the message.

    Raises:
        InputError: If there is no C compiler, or no header of Python.
    """
    if not (os.environ.get('CC') or shutil.which('gcc') or shutil.which('clang')):
        raise InputError(f'{key} compiles kernels for the GPU, and this machine has no C compiler '
                         '(gcc, clang, or one that the environment variable CC names): install '
                         'gcc, or change the setting')
    header = os.path.join(sysconfig.get_path('include'), 'Python.h')
    if not os.path.exists(header):
        raise InputError(f'{key} compiles kernels for the GPU, and {header} is missing: install '
                         'the headers of Python (python3-dev), or change the setting')
