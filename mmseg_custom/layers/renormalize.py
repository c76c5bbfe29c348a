"""Images from one normalisation to another, by one affine map of each channel.

B batch, H W pixels.
"""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

TOLERANCE = 1e-6  # of published means and deviations, which are rounded


class Renormalize(nn.Module):
    """Maps images that were normalised by ``(x - mean) / std`` to another mean and deviation.

    Where both are the same, images are returned as they are. The map is computed in float64 and
    kept in float32, outside of state dicts.

    Args:
        mean: Mean that was subtracted from the channels.
        std: Standard deviation that they were divided by.
        wanted_mean: Mean that is to be subtracted in its place.
        wanted_std: Standard deviation that they are to be divided by in its place.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], wanted_mean: Sequence[float],
                 wanted_std: Sequence[float]):
        super().__init__()
        mean_in, std_in, mean_out, std_out = (
            torch.tensor(values, dtype=torch.float64, device='cpu').view(-1, 1, 1)
            for values in (mean, std, wanted_mean, wanted_std))
        scale, shift = std_in / std_out, (mean_in - mean_out) / std_out
        self.is_identity = bool((scale - 1).abs().max() < TOLERANCE
                                and shift.abs().max() < TOLERANCE)
        self.register_buffer('scale', scale.float(), persistent=False)
        self.register_buffer('shift', shift.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return images if self.is_identity else images * self.scale + self.shift
