"""What libraries raise on a config, in one line with the key that they were working on."""
import os.path as osp
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mmcv.runner import BaseRunner

from ..distributed.failures import explain_failure, lost_rank
from ..errors import InputError, comes_from_library, words_of
from .determinism import NO_KERNEL
from .loader_failures import explain_loader

# mmcv's collate recurses without end into what holds no tensor.
UNCOLLATED = 'samples cannot be put into a batch: expected Collect as the last step of the pipeline'


@contextmanager
def reading(place: str, doing: str = 'does not work') -> Iterator[None]:
    """Turns errors that a library raises in the block into an InputError that names the config key.

    What this package or a user's own module raises is left alone, and so are failures of GPUs, of
    loader workers and of files, which have lines of their own.

    Args:
        place: Key of the config that is being read, or several.
        doing: Verb of the line, whose subject is the place.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if has_own_line(error) or not comes_from_library(error):
            raise
        said = UNCOLLATED if isinstance(error, RecursionError) else words_of(error)
        raise InputError(f'{place} {doing}: {said}{_where(error)}; correct it, or see the '
                         'traceback with --debug') from error


def has_own_line(error: Exception) -> bool:
    """Returns whether an error has an explanation of its own, apart from a config key."""
    return (isinstance(error, OSError) and error.filename is not None or lost_rank(error)
            or explain_failure(error) is not None or explain_loader(error) is not None
            or NO_KERNEL in str(error))


@contextmanager
def first_iteration(runner: BaseRunner) -> Iterator[None]:
    """Turns errors of libraries in the first iteration, and in no later one, into InputErrors."""
    start = runner.iter
    try:
        yield
    except Exception:
        if runner.iter > start:
            raise
        with reading('model, data.train or optimizer', 'fails in the first iteration'):
            raise


def _where(error: BaseException) -> str:
    """Returns the line in a library that an error comes from: ' (mmseg/x.py:12: assert y)'."""
    while error.__context__ is not None:  # mmcv's builder raises what it catches again
        error = error.__context__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or str(error).startswith('Caught '):
        return ''
    path = frames[-1].filename.split('site-packages' + osp.sep)[-1]
    return f' ({path}:{frames[-1].lineno}: {frames[-1].line})'
