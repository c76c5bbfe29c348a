"""The parts of a plain mask decoder: queries and patches in the blocks of a plain transformer.

Kerssies et al., "Your ViT is Secretly an Image Segmentation Model" (EoMT), 2025; Cavagnero et al.,
"Plain Mask Transformer", 2026. B batch, Q queries, N patches, D width, d = D / heads, h w patch
grid, K classes.
"""
import torch
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from .resize import resize_bilinear
from .rotary import rotate


class LateralProjection(nn.Module):
    """Brings the features of one layer of a backbone to the width of a decoder.

    Batch norm and a linear layer, then a residual MLP, and a learned factor of each channel by
    which the layers are weighted when they are summed. Channels of frozen features differ in mean
    and scale by more than tokens do, and a layer norm would leave these differences. SyncBN is
    plain batch norm in a single process.

    Args:
        in_channels: Width of the backbone.
        channels: D.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.norm = nn.SyncBatchNorm(in_channels)
        self.proj = nn.Linear(in_channels, channels)
        self.mlp = Mlp(channels, channels // 2)
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, N, D)."""
        x = self.proj(self.norm(maps).flatten(2).transpose(1, 2))
        return (x + self.mlp(x)) * self.scale


class Upscaling(nn.Module):
    """Doubles the resolution of a map: transposed convolution, GELU, 3x3 depthwise, norm.

    Args:
        dim: D.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = LayerNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, 2h, 2w)."""
        return self.norm(self.conv2(self.act(self.conv1(x))))


class MaskPredictor(nn.Module):
    """Reads classes and masks from queries and patches: the masks are products of both.

    Args:
        dim: D.
        num_classes: K.
        num_upscalings: Number of times that the resolution of the patches is doubled.
    """

    def __init__(self, dim: int, num_classes: int, num_upscalings: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.class_head = nn.Linear(dim, num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.upscale = nn.Sequential(*(Upscaling(dim) for _ in range(num_upscalings)))

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Predicts classes and masks.

        Args:
            tokens: (B, Q + N, D), the queries in front.
            grid: h, w.

        Returns:
            Logits of the masks (B, Q, s*h, s*w), where s is 2 to the number of upscalings, and of
            the classes (B, Q, K + 1), of which the last is 'no object'; both float32.
        """
        tokens = self.norm(tokens)
        queries, patches = tokens.split([tokens.shape[1] - grid[0] * grid[1], grid[0] * grid[1]], 1)
        pixels = self.upscale(patches.transpose(1, 2).unflatten(2, grid))
        masks = torch.einsum('bqd,bdhw->bqhw', self.mask_head(queries).float(), pixels.float())
        return masks, self.class_head(queries).float()


class MaskedBlock(nn.Module):
    """Pre-norm transformer block whose queries attend to some of the patches alone.

    Patches have rotary positions, queries none.

    Args:
        dim: D.
        num_heads: Number of attention heads; must divide D.
        mlp_ratio: Width of the MLP over D.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor | None = None) -> Tensor:
        """Computes the tokens after the block.

        Args:
            x: (B, Q + N, D), the queries in front.
            angles: (N, d / 2), see :func:`.rotary.patch_angles`.
            mask: (B, Q, N), whether a query attends to a patch; None for all to all.

        Returns:
            (B, Q + N, D).
        """
        x = x + self.proj(self._attend(self.norm1(x), angles, mask))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor, angles: Tensor, mask: Tensor | None) -> Tensor:
        num_queries = x.shape[1] - angles.shape[0]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (torch.cat([y[:, :, :num_queries], rotate(y[:, :, num_queries:], angles)], dim=2)
                for y in (q, k))  # (B, heads, Q + N, d)
        return masked_attention(q, k, v, mask).transpose(1, 2).flatten(2)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attends from queries to some of the patches, and from all tokens to all others.

    Rows with a mask are computed apart: the fast kernels take none, and the patches need none.

    Args:
        q: (B, heads, Q + N, d), the queries in front; ``k`` and ``v`` likewise.
        k: Keys.
        v: Values.
        mask: (B, Q, N), whether a query attends to a patch; None for all to all. Queries attend to
            queries always, so that one whose mask is empty has something to attend to.

    Returns:
        (B, heads, Q + N, d).
    """
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v)
    num_queries = mask.shape[1]
    mask = F.pad(mask, (num_queries, 0), value=True).unsqueeze(1)  # (B, 1, Q, Q + N)
    return torch.cat([
        F.scaled_dot_product_attention(q[:, :, :num_queries], k, v, mask),
        F.scaled_dot_product_attention(q[:, :, num_queries:], k, v)], dim=2)


@torch.no_grad()
def attention_mask(masks: Tensor, grid: tuple[int, int], probability: Tensor) -> Tensor:
    """Draws which queries are masked, and returns the patches that each attends to.

    Args:
        masks: (B, Q, H, W), logits of the predicted masks.
        grid: h, w.
        probability: (), share of the queries that attend to the patches of their mask alone; the
            others attend to all.

    Returns:
        (B, Q, N), booleans.
    """
    inside = resize_bilinear(masks, grid).flatten(2) > 0
    masked = torch.rand(*masks.shape[:2], 1, device=masks.device) < probability
    return inside | ~masked


def pixel_scores(masks: Tensor, classes: Tensor) -> Tensor:
    """Computes the scores of each class: the sum over queries of its probability times the mask.

    Cheng et al., "Per-Pixel Classification is Not All You Need" (MaskFormer), 2021.

    Args:
        masks: (B, Q, H, W), logits.
        classes: (B, Q, K + 1), logits, the last of 'no object'.

    Returns:
        (B, K, H, W), at least 0; they do not add up to 1.
    """
    return torch.einsum('bqk,bqhw->bkhw', classes.softmax(-1)[..., :-1], masks.sigmoid())
