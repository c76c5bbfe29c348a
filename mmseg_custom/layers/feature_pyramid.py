"""Four strides from one: the simple feature pyramid of a plain vision transformer.

B batch, C channels, h w patch grid.
"""
import torch
from torch import Tensor, nn

from .init import init_by_fan_out
from .norm import EPS, LayerNorm2d
from .resize import is_known

LEVELS = ('up1', 'up2', 'up3', 'up4')  # names of the modules, in order of their strides


class Halving(nn.MaxPool2d):
    """Keeps the largest of each 2x2 cells; a last row or column without a neighbour is left out."""

    def __init__(self) -> None:
        super().__init__(kernel_size=2, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h // 2, w // 2)."""
        if is_known(maps.shape[-2:]):
            return super().forward(maps)
        # PyTorch's pooling would make a graph for even grids alone.
        rows = torch.maximum(maps[..., :-1:2, :], maps[..., 1::2, :])
        return torch.maximum(rows[..., :-1:2], rows[..., 1::2])


def build_pyramid(dim: int, with_final_norm: bool = False) -> dict[str, nn.Sequential]:
    """Builds the modules ``up1`` to ``up4``: (B, C, h, w) -> 4x, 2x, 1x and 1/2 of the grid.

    At a patch of 14 pixels these are the strides 3.5, 7, 14 and 28. The names and the positions in
    each sequence (``up1.0``, ``up1.1``, ``up1.3``, ``up2.0``) are the published parameter names.

    Args:
        dim: C.
        with_final_norm: Whether each level ends with a layer norm over the channels.
    """

    def final() -> nn.Module:
        return LayerNorm2d(dim, eps=EPS) if with_final_norm else nn.Identity()

    def upsample() -> nn.Module:
        return nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)

    levels = [
        nn.Sequential(upsample(), LayerNorm2d(dim, eps=EPS), nn.GELU(), upsample(), final()),
        nn.Sequential(upsample(), final()),
        nn.Sequential(nn.Identity(), final()),
        nn.Sequential(Halving(), final())]
    for level in levels:
        level.apply(init_by_fan_out)
    return dict(zip(LEVELS, levels))
