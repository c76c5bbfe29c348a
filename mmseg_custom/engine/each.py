"""Processes many files; one that fails does not stop the others."""
from collections.abc import Callable, Collection
from typing import TypeVar

from tqdm import tqdm

from ..errors import InputError, refuse_failed
from ..progress import STDERR, progress_bar

Item = TypeVar('Item')


def for_each(items: Collection[Item], work: Callable[[Item], object], what: str,
             unit: str | None = None) -> None:
    """Calls a function on each item; reports failures at once, and continues.

    Args:
        items: Items, such as paths.
        work: Function of an item.
        what: Name of many items, for the last line: 'images'.
        unit: Name of an item, for a progress bar; None shows none.

    Raises:
        InputError: At the end, if some failed: see :func:`..errors.refuse_failed`.
    """
    failed = []
    with progress_bar(len(items) if unit and len(items) > 1 else 0, unit or '') as bar:
        for item in items:
            try:
                work(item)
            except InputError as error:
                failed.append(str(error))
                if len(items) > 1:
                    tqdm.write(f'failed: {error}', STDERR)  # leaves a progress bar intact
            bar.update()
    refuse_failed(failed, len(items), what)
