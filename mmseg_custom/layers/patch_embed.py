"""Pixels to patch tokens.

B batch, H W pixels, h w patch grid, N = h*w tokens, D width.
"""
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each one, in one strided convolution.

    Args:
        patch_size: Side of a square patch in pixels.
        in_chans: Channels of the image.
        embed_dim: Width D of a token.
    """

    def __init__(self, patch_size: int = 14, in_chans: int = 3, embed_dim: int = 3200):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embeds images.

        Args:
            images: (B, in_chans, H, W) of any float dtype, H and W multiples of ``patch_size``.

        Returns:
            Tokens (B, N, D), row by row, and the grid (h, w).

        Raises:
            ValueError: If a side is not a multiple of the patch.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'image of {height}x{width} pixels: both sides must be multiples of the '
                f'{self.patch_size}-pixel patch; resize it (ResizeToMultiple, '
                f'size_divisor={self.patch_size}) or pad it')
        tokens = self.proj(images.to(self.proj.weight.dtype))  # (B, D, h, w)
        grid = tuple(tokens.shape[-2:])
        return tokens.flatten(2).transpose(1, 2), grid  # (B, N, D)
