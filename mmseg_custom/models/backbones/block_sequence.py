"""How the blocks of a backbone are run: under autograd or not, recomputed or kept, read or not.

Blocks before the first trained one run without autograd. The last blocks may be deferred to a head,
which runs them with tokens of its own beside those of the image.

B batch, h w patch grid, N = h*w patch tokens, D width. A class token stands in front of the patch
tokens, and is left out of the feature maps.
"""
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..tuning import FROZEN, Tuning
from .pyramid_backbone import PyramidBackbone


class BlockSequence(PyramidBackbone):
    """Base of a backbone with ``blocks``: image -> tokens -> blocks -> tokens that are read.

    Attributes:
        blocks: The blocks, (B, 1 + N, D) -> (B, 1 + N, D).
        out_indices: Indices of the blocks whose tokens are read.
        tuning: What of the blocks is trained.
        with_cp: Whether activations are recomputed in training (activation checkpointing).
        embed_dim: Width D.
        with_fpn: Whether the maps become a feature pyramid.
        num_deferred: Number of blocks, the last that are read, which a head runs.
    """
    blocks: nn.ModuleList
    out_indices: list[int]
    tuning: Tuning
    with_cp: bool
    with_fpn: bool
    embed_dim: int
    _trains_positions: bool

    def __init__(self) -> None:
        super().__init__()
        self.num_deferred = 0
        self.set_checkpointing(every_kth=1)
        self.wrap_blocks(None)

    @property
    def first_trained(self) -> int:
        """Index of the first block that is trained; number of blocks that are read if none is."""
        return self._num_read if self.tuning.kind == FROZEN else self.tuning.first_trained

    @property
    def first_under_autograd(self) -> int:
        """Index of the first block that runs under autograd in training."""
        return 0 if self._trains_positions else self.first_trained

    @property
    def first_deferred(self) -> int:
        """Index of the first block that a head runs; number of those read if it runs none."""
        return self._num_read - self.num_deferred

    @property
    def _num_read(self) -> int:
        return max(self.out_indices) + 1

    def set_checkpointing(self, every_kth: int, first: int | None = None) -> None:
        """Sets which blocks recompute their activations in training, where ``with_cp`` is set.

        Blocks are counted from the first that runs under autograd.

        Args:
            every_kth: 1 for all blocks, 2 for every second one, and so on.
            first: Number of blocks, from the first, that ``every_kth`` concerns; those behind keep
                their activations. None: all blocks.
        """
        self._recomputed = range(0, sys.maxsize if first is None else first, every_kth)

    def wrap_blocks(self, wrapper: Callable[[Callable, Tensor], list[Tensor]] | None) -> None:
        """Sets what runs the blocks where none is under autograd; None for the blocks themselves.

        Args:
            wrapper: Function of a function that runs the blocks, and of the tokens (B, N, D) before
                the first one; returns the tokens of the blocks that are read.
        """
        self._wrapper = wrapper

    def defer_blocks(self, count: int) -> None:
        """Defers the last blocks that are read to a head, which calls :meth:`run_deferred_block`.

        The backbone's ``forward`` then returns what the first of them is given, in the dtype that
        tokens have between blocks: the class token (B, D, 1, 1), and the others (B, D, h, w).

        Args:
            count: Number of blocks; 0 for none. Block ``first_deferred`` must not come before the
                first trained one: blocks without autograd give queries no gradient.
        """
        self.num_deferred = count

    def run_deferred_block(self, index: int, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Runs a block that is deferred to a head, as this network runs its own.

        Args:
            index: Index of the block, from ``first_deferred`` on.
            tokens: (B, M, D), those of the image and of the head in any order.
            mask: Boolean, broadcastable to (B, heads, R, M), for the first R tokens: see
                :class:`...layers.attention.Attention`.

        Returns:
            (B, M, D).
        """
        return self._run_block(index, tokens, self.first_under_autograd,
                               () if mask is None else (mask,))

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, in_chans, H, W) -> tokens (B, 1 + N, D) and the patch grid (h, w)."""
        raise NotImplementedError

    def _trunk(self, images: Tensor) -> list[Tensor]:
        """(B, in_chans, H, W) -> a feature map (B, D, h, w) for each of ``out_indices``."""
        start = self.first_under_autograd
        if start == self._num_read or not torch.is_grad_enabled():
            with torch.no_grad():
                tokens, grid = self._embed(images)
                outs = (self._read_tokens(tokens) if self._wrapper is None
                        else self._wrapper(self._read_tokens, tokens))
                return self._outputs(outs, grid)
        with nullcontext() if self._trains_positions else torch.no_grad():
            tokens, grid = self._embed(images)
            tokens, outs = self._run_blocks(tokens, 0, start)
        return self._outputs(outs + self._read_from(tokens, start), grid)

    def _frozen_part(self, images: Tensor) -> list[Tensor]:
        """(B, in_chans, H, W) -> maps and tokens: see the backbone's ``frozen_features``."""
        tokens, grid = self._embed(images)
        tokens, outs = self._run_blocks(tokens, 0, self.first_trained)
        return [*_maps(outs, grid), *_split(tokens, grid)]

    def _trained_part(self, cls_token: Tensor, patches: Tensor) -> list[Tensor]:
        """(B, D, 1, 1), (B, D, h, w) -> feature maps from the first trained block on."""
        tokens = torch.cat([cls_token.flatten(2), patches.flatten(2)], dim=2).transpose(1, 2)
        # That of master weights, where casts follow, else the one that the block computes in.
        dtype = next(p.dtype for p in self.blocks[self.first_trained].parameters()
                     if p.requires_grad)
        outs = self._read_from(tokens.to(dtype).contiguous(), self.first_trained)
        return self._outputs(outs, patches.shape[2:])

    def _outputs(self, outs: list[Tensor], grid: Sequence[int]) -> list[Tensor]:
        """Tokens (B, 1 + N, D) of :meth:`_read_from` -> maps (B, D, h, w)."""
        return _split(outs[-1], grid) if self.num_deferred else _maps(outs, grid)

    def _read_tokens(self, tokens: Tensor) -> list[Tensor]:
        """Runs all blocks that are needed; returns the tokens of those that are read."""
        return self._read_from(tokens, 0)

    def _read_from(self, tokens: Tensor, start: int) -> list[Tensor]:
        """Runs the blocks from one on; returns tokens that are read, or the last before a head."""
        tokens, outs = self._run_blocks(tokens, start, self.first_deferred)
        return [tokens] if self.num_deferred else outs

    def _run_blocks(self, tokens: Tensor, start: int, stop: int,
                    counted_from: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """Runs some of the blocks; returns the last tokens, and those of blocks that are read.

        Args:
            tokens: (B, 1 + N, D).
            start: Index of the first block to run.
            stop: Index after that of the last one.
            counted_from: Index from which on blocks to recompute are counted; default: ``start``.
        """
        outs = []
        for i in range(start, stop):
            tokens = self._run_block(i, tokens, start if counted_from is None else counted_from)
            if i in self.out_indices:
                outs.append(tokens)
        return tokens, outs

    def _run_block(self, i: int, tokens: Tensor, start: int, more: tuple = ()) -> Tensor:
        """Runs a block; those to recompute are counted from ``start``."""
        recompute = self.with_cp and self.training and torch.is_grad_enabled()
        if recompute and i - start in self._recomputed:
            return checkpoint(self.blocks[i], tokens, *more, use_reentrant=False)
        return self.blocks[i](tokens, *more)


def _maps(tokens: Sequence[Tensor], grid: Sequence[int]) -> list[Tensor]:
    """(B, 1 + N, D) -> (B, D, h, w), without the class token."""
    return [each[:, 1:].transpose(1, 2).unflatten(2, tuple(grid)) for each in tokens]


def _split(tokens: Tensor, grid: Sequence[int]) -> list[Tensor]:
    """(B, 1 + N, D) -> class token (B, D, 1, 1), and the others (B, D, h, w)."""
    return [tokens[:, :1].transpose(1, 2).unsqueeze(-1), *_maps([tokens], grid)]
