"""Progress bars, on rank 0."""
import sys
from contextlib import suppress

from mmcv.runner import get_dist_info
from tqdm import tqdm


def progress_bar(total: int, unit: str, description: str = '', initial: int = 0) -> tqdm:
    """Returns a progress bar, drawn on rank 0 only, and less often if the output is a file.

    Args:
        total: Total number of units.
        unit: Name of a unit.
        description: Text beside the bar.
        initial: Number of units done already.
    """
    return tqdm(total=total, unit=unit, desc=description or None, initial=initial,
                file=_Output(), disable=get_dist_info()[0] > 0 or not total,
                mininterval=1 if sys.stderr.isatty() else 30)


class _Output:
    """Standard error that drops what cannot be written: a full disk must not end a run."""

    encoding = property(lambda self: getattr(sys.stderr, 'encoding', None))

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()
