"""Network -> machine code: a package of PyTorch's AOTInductor, checked on the spot.

``model.pt2`` holds code for one kind of device, and the weights. Loading it needs PyTorch, and
neither a compiler nor the code of this package.
"""
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import InputError, words_of
from ..files import atomic_path
from ..logs import MAIN
from .agreement import Agreement, check_windows, compare
from .network import WindowNetwork
from .program import export_program
from .runtimes import AotRuntime

ENDING = '.pt2'  # which PyTorch's writer asks for
CACHE = 'TORCHINDUCTOR_CACHE_DIR'


def export_aot(network: WindowNetwork, path: str, image_size: tuple[int, int],
               device: torch.device | str = 'cpu') -> Agreement:
    """Compiles a network for windows of any number and size, and checks the result.

    The package computes in the dtypes of the network, casts included.

    Args:
        network: Network in eval mode; it is moved to the device.
        path: File ``*.pt2``.
        image_size: Height and width in pixels of the windows that it will be run at.
        device: Device that the package is for, on which it is compiled and checked.

    Returns:
        How far the package agrees with PyTorch.

    Raises:
        InputError: If there is no C++ compiler, the network cannot be exported, or the package
            computes something else; no file is written then.
    """
    check_compiler()
    device = torch.device(device)
    network = network.to(device)
    windows = [batch.to(device) for batch in check_windows(network, image_size)]
    with torch.no_grad():
        expected = [network(batch) for batch in windows]
    program = export_program(network, image_size)
    with atomic_path(path) as part:
        written = part + ENDING
        try:
            with _own_cache(path):
                torch._inductor.aoti_compile_and_package(program, package_path=written)
            found = compare(expected, AotRuntime(written, device), windows)
            found.check(network.dtype, 'the package of AOTInductor')
            os.replace(written, part)
        except InputError:
            raise
        except Exception as error:  # of the compiler, or of what Inductor cannot lower
            raise InputError(f'AOTInductor cannot compile the network ({words_of(error)}): run it '
                             'with PyTorch') from error
        finally:
            if os.path.exists(written):
                os.remove(written)
    logging.getLogger(MAIN).info('%s: %s', path, found)
    return found


def check_compiler() -> None:
    """Checks that there is a C++ compiler, which Inductor writes code for.

    Raises:
        InputError: If there is none.
    """
    from torch._inductor import cpp_builder, exc
    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, OSError, RuntimeError) as error:
        raise InputError('AOTInductor needs a C++ compiler, and there is none: install g++ '
                         '(apt-get install g++), or set CXX to one') from error


@contextmanager
def _own_cache(path: str) -> Iterator[None]:
    """Has Inductor keep its files, the weights among them, in a folder that goes afterwards.

    Where the environment names a cache, they are kept there, and the next export is quicker.

    Args:
        path: File beside which the folder is.
    """
    if CACHE in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(path))) as folder:
        os.environ[CACHE] = folder
        try:
            yield
        finally:
            del os.environ[CACHE]
