"""Chooses how many blocks are recomputed, so that a step just fits into memory.

The first of the blocks that run under autograd are recomputed, and those behind keep their
activations: the backward pass frees what these have kept before the first ones are recomputed. A
number of blocks is the finest choice that there is; every k-th block would leave gaps between all,
half and a third of them.
"""
from collections.abc import Callable
from dataclasses import dataclass

from ..units import GIB
from .run_shape import RunShape

# For workspaces of cuDNN's convolutions beyond what is predicted (docs/gpu.md has what an H200 took
# for UPerNet's).
MARGIN = 3 * GIB


@dataclass(frozen=True)
class Recomputation:
    """Numbers of recomputed blocks, and the predicted peaks in bytes of each GPU.

    Attributes:
        blocks: Number that was chosen.
        blocks_in_all: Number of blocks that run under autograd.
        limit: Bytes that the step may take; None if not known.
        peaks: Peak by number: of the chosen one, and of its neighbours.
    """
    blocks: int
    blocks_in_all: int
    limit: int | None
    peaks: dict[int, int]

    def __str__(self) -> str:
        if self.limit is None:
            return f'all {self.blocks_in_all} blocks are recomputed: no memory of a GPU is known'
        peak = self.peaks[self.blocks]
        others = [f'{count / GIB:.1f} with {blocks}' for blocks, count in self.peaks.items()
                  if blocks != self.blocks]
        fits = '' if peak <= self.limit else ', which is more: tools/doctor.py has ways out'
        return (f'{self.blocks} of {self.blocks_in_all} blocks are recomputed: predicted peak '
                f'{peak / GIB:.1f} GiB of {self.limit / GIB:.1f} GiB{fits} '
                f'({", ".join(others)})')


def limit_of(shape: RunShape) -> int | None:
    """Returns the bytes that a step may be predicted to take; None on the CPU, or if not known."""
    if shape.device == 'cpu' or shape.usable is None:
        return None
    return shape.usable - MARGIN


def choose_blocks(peak: Callable[[int], int], blocks: int, limit: int | None) -> Recomputation:
    """Chooses the least number of blocks whose recomputation lets a step fit.

    Args:
        peak: Predicts the peak, in bytes, for a number of recomputed blocks; it does not rise with
            that number.
        blocks: Number of blocks that run under autograd.
        limit: Bytes that the step may take; None recomputes all blocks.
    """
    if limit is None:
        return Recomputation(blocks, blocks, None, {})
    low, high = 0, blocks
    while low < high:
        middle = (low + high) // 2 if low else 0
        if peak(middle) <= limit:
            high = middle
        else:
            low = middle + 1
    around = range(max(low - 1, 0), min(low + 1, blocks) + 1)
    return Recomputation(low, blocks, limit, {number: peak(number) for number in around})
