"""Processes many files; one that fails does not stop the others."""
import sys
from collections.abc import Callable, Collection
from typing import TypeVar

from tqdm import tqdm

from ..errors import InputError, refuse_failed

Item = TypeVar('Item')


def for_each(items: Collection[Item], work: Callable[[Item], object], what: str) -> None:
    """Calls a function on each item; reports failures at once, and continues.

    Args:
        items: Items, such as paths, or a progress bar over them.
        work: Function of an item.
        what: Name of many items, for the last line: 'images'.

    Raises:
        InputError: At the end, if some failed: see :func:`..errors.refuse_failed`.
    """
    failed = []
    for item in items:
        try:
            work(item)
        except InputError as error:
            failed.append(str(error))
            if len(items) > 1:
                tqdm.write(f'failed: {error}', sys.stderr)  # leaves a progress bar intact
    refuse_failed(failed, len(items), what)
