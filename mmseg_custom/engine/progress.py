"""Progress bars of long work, on rank 0."""
import sys

from mmcv.runner import get_dist_info
from tqdm import tqdm


def progress_bar(total: int, unit: str, description: str = '', initial: int = 0) -> tqdm:
    """Returns a bar that is drawn on rank 0 alone, and seldom where the output is a file.

    Args:
        total: Number of units of the whole work.
        unit: Name of a unit.
        description: What is being done.
        initial: Units that are done already.
    """
    return tqdm(total=total, unit=unit, desc=description or None, initial=initial,
                disable=get_dist_info()[0] > 0 or not total,
                mininterval=1 if sys.stderr.isatty() else 30)
