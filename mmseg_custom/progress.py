"""Progress, on rank 0: a bar on a terminal, and elsewhere a line now and then."""
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from mmcv.runner import get_dist_info
from tqdm import tqdm

Item = TypeVar('Item')

EVERY = 30  # seconds between lines, where there is no terminal
BETWEEN = 5  # seconds between steps that are told
CLOSED = (OSError, ValueError, AttributeError)  # full; closed later; None, as it was from the start


def is_terminal() -> bool:
    """Returns whether standard error is a terminal on which a line can be drawn again."""
    try:
        return sys.stderr.isatty() and os.environ.get('TERM') != 'dumb'
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def progress_bar(total: int, unit: str, description: str = '', initial: int = 0,
                 leave: bool = True, bar_format: str | None = None) -> tqdm:
    """Returns a progress bar; in a file, it is a line now and then.

    Args:
        total: Total number of units.
        unit: Name of a unit; 'B' for bytes, which are shown in kB, MB ...
        description: Text beside the bar.
        initial: Number of units done already.
        leave: Whether the bar stays on the terminal when it is done.
        bar_format: tqdm's format of a bar on a terminal.
    """
    common = dict(total=total, unit=unit, initial=initial,
                  unit_scale=unit == 'B', disable=get_dist_info()[0] > 0 or not total)
    if is_terminal():
        return tqdm(desc=description or None, file=STDERR, mininterval=0.5, leave=leave,
                    bar_format=bar_format, dynamic_ncols=_has_size(), **common)
    title = f'{description}: ' if description else ''
    return tqdm(file=_Lines(), mininterval=EVERY, maxinterval=EVERY, position=0,
                bar_format=title + '{n_fmt}' + ('B of {total_fmt}B' if unit == 'B' else
                                                ' of {total_fmt} ' + unit + 's')
                + ', {elapsed} so far, '
                '{remaining} left{postfix}', **common)


def with_progress(items: Iterable[Item], total: int, unit: str, description: str = ''
                  ) -> Iterator[Item]:
    """Yields items, and shows how many of them are done.

    Args:
        items: Items.
        total: Number of items.
        unit: See :func:`progress_bar`.
        description: See :func:`progress_bar`.
    """
    with progress_bar(total, unit, description) as bar:
        for item in items:
            yield item
            bar.update()


def _has_size() -> bool:
    """Returns whether the terminal tells its size: tqdm draws nothing on one of 0 rows."""
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except OSError:
        return False


class Steps:
    """Shows which step of a command runs: in a line of the terminal, elsewhere in lines at times.

    Args:
        doing: What the command does: 'checking'.
    """

    def __init__(self, doing: str):
        self._doing, self._said = doing, time.monotonic()

    def __call__(self, step: str) -> None:
        """Shows a step; none, an empty one, clears the line."""
        if is_terminal():
            width = shutil.get_terminal_size().columns - 1
            text = f'{self._doing}: {step}' if step else ''
            STDERR.write(f'\r{text[:width]:<{width}}\r')
            STDERR.flush()
        elif step and time.monotonic() - self._said > BETWEEN:
            self._said = time.monotonic()
            STDERR.write(f'{self._doing}: {step}\n')


class _Output:
    """Standard error that drops what cannot be written: a full disk must not end a run."""

    encoding = property(lambda self: getattr(sys.stderr, 'encoding', None))

    def write(self, text: str) -> None:
        with suppress(*CLOSED):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(*CLOSED):
            sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()


class _Lines(_Output):
    """Standard error on which each state of a bar is a line of its own."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            super().write(f'{line}\n')


STDERR = _Output()  # one object, by which tqdm knows that lines and bars share the screen
