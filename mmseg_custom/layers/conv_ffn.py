"""A feed-forward network with a depthwise convolution over tokens of several grids.

B batch, N = sum of h*w tokens of all levels, D width, h w grid of a level.
"""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .deformable_attention import Grid


def split_levels(tokens: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """(B, N, D) -> one map (B, D, h, w) for each grid."""
    parts = tokens.split([h * w for h, w in grids], dim=1)
    return [part.transpose(1, 2).unflatten(2, grid) for part, grid in zip(parts, grids)]


def join_levels(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, D, h, w) -> (B, N, D), row by row."""
    return torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)


class DepthwiseConv(nn.Module):
    """A 3x3 convolution of each channel, with the same weights on all levels."""

    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, tokens: Tensor, grids: Sequence[Grid]) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return join_levels([self.dwconv(each.contiguous())
                            for each in split_levels(tokens, grids)])


class ConvFFN(nn.Module):
    """The convolutional feed-forward network of ViT-Adapter (Chen et al., 2023).

    Args:
        dim: D.
        hidden: Width between its two linear layers.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor, grids: Sequence[Grid]) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.fc2(self.act(self.dwconv(self.fc1(tokens), grids)))
