"""Pads batches to few sizes, for blocks that are compiled or captured once for each size.

B batch, N tokens, D width.
"""
from collections.abc import Callable

import torch
from torch import Tensor

Blocks = Callable[[Tensor], list[Tensor]]  # tokens (B, N, D) -> tokens of the layers that are read


class FixedBatches:
    """Pads batches to few sizes: 1, 2, 3, 4, 6, 8, 12, 16, ..., and the first that came.

    An image has any number of windows, and the last batch of a data set what is left. The first
    size stays as it is, since that is the batch of a training. Padding is zeros, at most a third of
    the result; the rows of a batch do not depend on each other.

    Args:
        inner: Function that is given the blocks and the padded tokens, and runs them; default: the
            blocks themselves.
    """

    def __init__(self, inner: Callable[[Blocks, Tensor], list[Tensor]] | None = None):
        self._inner = inner
        self._sizes: dict[tuple, set[int]] = {}  # by N, D and dtype

    def __call__(self, run: Blocks, tokens: Tensor) -> list[Tensor]:
        """Runs blocks on tokens (B, N, D), without autograd; returns tokens of B rows."""
        batch = len(tokens)
        size = self._size_for(batch, (*tokens.shape[1:], tokens.dtype))
        if size > batch:
            tokens = torch.cat([tokens, tokens.new_zeros(size - batch, *tokens.shape[1:])])
        outs = run(tokens) if self._inner is None else self._inner(run, tokens)
        return [out[:batch] for out in outs]

    def _size_for(self, batch: int, kind: tuple) -> int:
        """Returns the size that a batch is padded to."""
        sizes = self._sizes.setdefault(kind, {batch})
        step = _next_step(batch)
        size = min((size for size in sizes if batch <= size <= step), default=step)
        sizes.add(size)
        return size


def _next_step(batch: int) -> int:
    """Returns the least power of two, or three times one, that is not below a batch size."""
    power = 1 << (batch - 1).bit_length()
    return power * 3 // 4 if batch <= power * 3 // 4 else power
