"""Resizing and pooling of feature maps, with a backward pass that can be deterministic on a GPU.

PyTorch's kernels add up the gradients of a cell in whatever order threads arrive. For bicubic
resizing and adaptive pooling it has no other kernel, for bilinear resizing a slow one. All three
are linear and act on one axis after the other, so that two small matrices do the same. These are
used where gradients flow on a GPU after ``torch.use_deterministic_algorithms(True)``; everywhere
else PyTorch's own kernels run.

B batch, C channels, h w grid of the input, H W grid of the output.
"""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = Sequence[int]  # of two


def resize_bilinear(maps: Tensor, size: Size, align_corners: bool = False) -> Tensor:
    """Resizes maps (B, C, h, w) to (B, C, H, W), as ``F.interpolate`` does."""
    size = (size[0], size[1])
    if not _deterministic_on_gpu(maps):
        return F.interpolate(maps, size, mode='bilinear', align_corners=align_corners)
    if not _differentiated(maps):  # F.interpolate would take the slow kernel here too
        return torch.ops.aten.upsample_bilinear2d(maps, size, align_corners)
    return _along_both(maps, size, lambda unit, to: F.interpolate(
        unit, to, mode='linear', align_corners=align_corners))


def resize_bicubic(maps: Tensor, size: Size) -> Tensor:
    """Resizes maps (B, C, h, w) to (B, C, H, W), ``align_corners=False``, without antialiasing."""
    size = (size[0], size[1])
    if not (_deterministic_on_gpu(maps) and _differentiated(maps)):
        return F.interpolate(maps, size, mode='bicubic', align_corners=False)
    return _along_both(maps, size, lambda unit, to: F.interpolate(
        unit[..., None], (to, 1), mode='bicubic', align_corners=False)[..., 0])


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """``nn.AdaptiveAvgPool2d`` whose backward pass can be deterministic on a GPU."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, H, W)."""
        known = is_known(maps.shape[-2:])  # else nor are the cells of each mean
        if known and not (_deterministic_on_gpu(maps) and _differentiated(maps)):
            return super().forward(maps)
        rows, columns = (self.output_size if isinstance(self.output_size, tuple)
                         else (self.output_size, self.output_size))
        size = (rows or maps.shape[-2], columns or maps.shape[-1])
        if known:
            return _along_both(maps, size, F.adaptive_avg_pool1d)
        of_rows, of_columns = (_pooling_matrix(length, to, maps)
                               for length, to in zip(maps.shape[-2:], size))
        return of_rows @ (maps @ of_columns.T)


def _pooling_matrix(length: int, to: int, like: Tensor) -> Tensor:
    """Returns the share (to, length) of each cell of a line in the means of adaptive pooling."""
    cells = torch.arange(length, device=like.device)
    means = torch.arange(to, device=like.device)[:, None]
    inside = ((cells + 1) * to > means * length) & (cells * to < (means + 1) * length)
    shares = inside.to(like.dtype)
    return shares / shares.sum(1, keepdim=True)


def _along_both(maps: Tensor, size: Size, operation: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Applies a linear operation along both axes, as two matrix products.

    Args:
        maps: (B, C, h, w).
        size: (H, W).
        operation: Function of lines (1, n, length) and a length that returns (1, n, new length).
    """
    def matrix(length: int, to: int) -> Tensor:
        """Returns (to, length)."""
        unit = torch.eye(length, dtype=maps.dtype, device=maps.device)
        return operation(unit[None], to)[0].T

    rows, columns = (matrix(length, to) for length, to in zip(maps.shape[-2:], size))
    if not is_channels_last(maps):
        return rows @ (maps @ columns.T)  # (B, C, h, w) -> (B, C, h, W) -> (B, C, H, W)
    # Products of whole rows of channels need no copies with the channels first.
    batch, (h, w) = len(maps), maps.shape[-2:]
    lines = maps.permute(0, 2, 3, 1).flatten(0, 1)  # (B*h, w, C)
    lines = torch.bmm(columns.expand(batch * h, -1, w), lines)  # (B*h, W, C)
    lines = lines.view(batch, h, -1)  # (B, h, W*C)
    lines = torch.bmm(rows.expand(batch, -1, h), lines)  # (B, H, W*C)
    return lines.unflatten(2, (size[1], maps.shape[1])).permute(0, 3, 1, 2)


def is_known(size: Size) -> bool:
    """Returns whether sizes are numbers; in a graph for images of any size they are symbols."""
    return all(isinstance(length, int) for length in size)


def is_channels_last(maps: Tensor) -> bool:
    """Returns whether maps (B, C, h, w) are stored as (B, h, w, C) and not as (B, C, h, w) too."""
    return maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()


def _deterministic_on_gpu(maps: Tensor) -> bool:
    return not maps.is_cpu and torch.are_deterministic_algorithms_enabled()


def _differentiated(maps: Tensor) -> bool:
    return maps.requires_grad and torch.is_grad_enabled()
