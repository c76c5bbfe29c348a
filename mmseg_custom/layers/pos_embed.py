"""Learned absolute position embeddings, resampled to the grid of an image.

N tokens without prefix, h w patch grid, D width.
"""
import math

import torch
from torch import Tensor

from .resize import is_known, resize_bicubic


def resample_pos_embed(pos_embed: Tensor, grid: tuple[int, int],
                       num_prefix_tokens: int = 1) -> Tensor:
    """Resamples a square position embedding to another grid.

    Bicubic, ``align_corners=False``, without antialiasing: what the published checkpoints were
    trained and tested with. (timm's ``resample_abs_pos_embed`` antialiases by default, and
    PyTorch's antialiased bicubic is another kernel even where it enlarges.) Computed in float32,
    returned in the dtype that came in; differentiable.

    Args:
        pos_embed: (1, P + N, D), P prefix tokens (the class token) and a square grid of N.
        grid: Target grid (h, w) in patches.
        num_prefix_tokens: P; these tokens are passed through unchanged.

    Returns:
        (1, P + h*w, D).

    Raises:
        ValueError: If N is not a square number.
    """
    prefix, patches = pos_embed.split(
        [num_prefix_tokens, pos_embed.shape[1] - num_prefix_tokens], dim=1)
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise ValueError(f'position embedding of {patches.shape[1]} patches: '
                         'expected a square grid')
    if is_known(grid) and (side, side) == tuple(grid):
        return pos_embed
    square = patches.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, side, side)
    patches = resize_bicubic(square, grid).flatten(2).transpose(1, 2)  # (1, h*w, D)
    patches = patches.to(pos_embed.dtype)
    return torch.cat([prefix, patches], dim=1)


class PosEmbedCache:
    """Caches the resampled embedding of each grid while the embedding itself does not change.

    Testing meets the same few grids again and again, and a bicubic resampling at width 3200 costs
    more than the patch embedding. Nothing is cached while gradients flow through the embedding, or
    while the network is exported or compiled; and all entries are dropped when the embedding was
    written to, moved or replaced.

    Args:
        max_grids: Largest number of cached grids; the oldest is dropped first.
    """

    def __init__(self, max_grids: int = 16):
        self.max_grids = max_grids
        self._source: tuple | None = None  # of the cached entries
        self._grids: dict[tuple[int, int], Tensor] = {}

    def __call__(self, pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
        """Returns the embedding for a grid: see :func:`resample_pos_embed`."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # a graph for any weights
            return resample_pos_embed(pos_embed, grid)
        if torch.is_grad_enabled() and pos_embed.requires_grad:
            return resample_pos_embed(pos_embed, grid)
        if pos_embed.is_inference():  # carries no version to watch
            return resample_pos_embed(pos_embed, grid)
        source = (pos_embed.data_ptr(), pos_embed._version, pos_embed.dtype, pos_embed.device)
        if source != self._source:
            self._source = source
            self._grids.clear()
        if grid not in self._grids:
            while len(self._grids) >= self.max_grids:
                self._grids.pop(next(iter(self._grids)))
            self._grids[grid] = resample_pos_embed(pos_embed, grid)
        return self._grids[grid]

    def __getstate__(self) -> dict:
        return dict(max_grids=self.max_grids, _source=None, _grids={})
