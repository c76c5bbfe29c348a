"""Rotary positions of patches on a grid.

Su et al., "RoFormer", 2021; on two axes as in DINOv3 (Simeoni et al., 2025), whose coordinates run
from -1 to 1 over any grid. N patches, h w patch grid, d width of an attention head.
"""
import math

import torch
from torch import Tensor

BASE = 100.0  # ratio of the longest to the shortest period


def patch_angles(grid: tuple[int, int], head_dim: int, device: torch.device) -> Tensor:
    """Computes the angles (N, d / 2) by which the pairs of channels of each patch are turned.

    The first half of them turns with the row, the second with the column. The shortest period is
    half of the grid.

    Args:
        grid: h, w.
        head_dim: d, a multiple of 4.
        device: Device of the result.
    """
    periods = BASE ** torch.arange(0, 1, 4 / head_dim, device=device)  # (d / 4,)
    rows, columns = (_coordinates(n, periods)[:, None] / periods for n in grid)
    h, w = grid
    both = torch.cat([rows[:, None].expand(h, w, -1), columns[None].expand(h, w, -1)], dim=-1)
    return 2 * math.pi * both.flatten(0, 1)


def _coordinates(length: int, like: Tensor) -> Tensor:
    """Returns the centres (length,) of cells that divide the line from -1 to 1."""
    centers = torch.arange(length, dtype=like.dtype, device=like.device) + 0.5
    # The length is a symbol in an exported graph, and ONNX divides a float by floats alone.
    return centers / torch.sym_float(length) * 2 - 1


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turns channels i and i + d / 2 by their angle: (..., N, d), (N, d / 2) -> (..., N, d)."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
