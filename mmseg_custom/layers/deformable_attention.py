"""Multi-scale deformable attention: each query reads a few learned points of each level.

B batch, Q queries, N = sum of h*w cells of all levels, L levels, P points, D width, d width of a
head's values, h w grid of a level.
"""
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Grid = tuple[int, int]  # (h, w)
# Values (B, N, heads, d), the grids of the L levels, locations (B, Q, heads, L, P, 2) as (x, y)
# from 0 to 1, weights (B, Q, heads, L, P), all float32 -> (B, Q, heads*d).
Kernel = Callable[[Tensor, Sequence[Grid], Tensor, Tensor], Tensor]


class DeformableAttention(nn.Module):
    """Deformable attention (Zhu et al., "Deformable DETR", 2021), with narrower values.

    Points are located and read in float32: the 8 significant bits of bfloat16 would move them by up
    to an eighth of a cell on a level of 64x64 cells.

    Args:
        dim: D.
        num_heads: Number of heads; must divide D and the width of the values.
        num_levels: L.
        num_points: P, per head and level.
        ratio: Width of the values over D.
        kernel: Function that reads the points.

    Raises:
        ValueError: If ``num_heads`` does not divide both widths.
    """

    def __init__(self, dim: int, num_heads: int, num_levels: int, num_points: int, ratio: float,
                 kernel: Kernel):
        super().__init__()
        width = int(dim * ratio)
        if dim % num_heads or width % num_heads or not width:
            raise ValueError(f'{num_heads} heads: expected a divisor of the width {dim}, and of '
                             f'that of the values, {width}')
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.kernel = kernel
        self.sampling_offsets = nn.Linear(dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(dim, width)
        self.output_proj = nn.Linear(width, dim)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Lets the points of each head start on a ray of its own, 1 to P cells away."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        for layer in (self.attention_weights, self.value_proj, self.output_proj):
            nn.init.zeros_(layer.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
        bias = self.sampling_offsets.bias
        angles = torch.arange(self.num_heads, dtype=torch.float32, device=bias.device)
        angles *= 2 * math.pi / self.num_heads
        rays = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (heads, 2)
        rays /= rays.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32, device=bias.device)
        points = rays[:, None, None] * steps[:, None]  # (heads, 1, P, 2)
        bias.copy_(points.expand(-1, self.num_levels, -1, -1).flatten())

    def forward(self, queries: Tensor, values: Tensor, query_grids: Sequence[Grid],
                value_grids: Sequence[Grid]) -> Tensor:
        """Attends from the cells of some levels to points of others.

        Args:
            queries: (B, Q, D).
            values: (B, N, D).
            query_grids: Grids whose cells the queries are, level by level and row by row.
            value_grids: Grids of the values' L levels, likewise.

        Returns:
            (B, Q, D).
        """
        shape = (self.num_heads, self.num_levels, self.num_points)
        read = self.value_proj(values).unflatten(-1, (self.num_heads, -1))  # (B, N, heads, d)
        offsets = self.sampling_offsets(queries).float().unflatten(-1, (*shape, 2))  # in cells
        weights = self.attention_weights(queries).float().unflatten(
            -1, (self.num_heads, -1)).softmax(-1).unflatten(-1, shape[1:])  # (B, Q, heads, L, P)
        # Filled on the device: a copy from the host would wait for the GPU.
        sizes = torch.stack([torch.stack([offsets.new_full((), w), offsets.new_full((), h)])
                             for h, w in value_grids])  # (L, 2)
        centers = cell_centers(query_grids, offsets.device)[:, None, None, None]
        found = self.kernel(read.float(), value_grids, centers + offsets / sizes[:, None], weights)
        return self.output_proj(found.to(read.dtype))


def read_points(values: Tensor, grids: Sequence[Grid], locations: Tensor, weights: Tensor
                ) -> Tensor:
    """Reads points by PyTorch's ``grid_sample``, bilinearly and with zeros around each level.

    Args:
        values: (B, N, heads, d).
        grids: Grids (h, w) of the L levels, whose cells the values are.
        locations: (B, Q, heads, L, P, 2), as (x, y) from 0 to 1.
        weights: (B, Q, heads, L, P).

    Returns:
        Weighted sums of the points (B, Q, heads*d).
    """
    batch, _, heads, width = values.shape
    places = 2 * locations - 1  # from -1 to 1
    channels_first = values.permute(0, 2, 3, 1).flatten(0, 1)  # (B*heads, d, N)
    points, start = [], 0
    for level, (h, w) in enumerate(grids):
        cells = channels_first[..., start:start + h * w].unflatten(-1, (h, w))
        # (B*heads, Q, P, 2), a copy: PyTorch goes through points in the order that they have in it.
        own = places[:, :, :, level].transpose(1, 2).flatten(0, 1)
        points.append(F.grid_sample(cells, own, align_corners=False))
        start += h * w
    shares = weights.transpose(1, 2).flatten(3).flatten(0, 1)  # (B*heads, Q, L*P)
    sums = (torch.cat(points, dim=-1) * shares[:, None]).sum(-1)  # (B*heads, d, Q)
    return sums.view(batch, heads * width, -1).transpose(1, 2).contiguous()


def cell_centers(grids: Sequence[Grid], device: torch.device) -> Tensor:
    """Returns the centres (Q, 2) of all cells of some grids, as (x, y) from 0 to 1."""
    found = []
    for h, w in grids:
        y = (torch.arange(h, dtype=torch.float32, device=device) + 0.5) / h
        x = (torch.arange(w, dtype=torch.float32, device=device) + 0.5) / w
        found.append(torch.stack([x.expand(h, -1), y[:, None].expand(-1, w)], dim=-1).flatten(0, 1))
    return torch.cat(found)
