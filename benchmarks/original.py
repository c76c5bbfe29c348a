"""The original's way, as the rival of a measurement: on the same weights, eager and unfused.

As InternVL's segmentation folder runs a frozen backbone: each norm in separate operations, in
float32; flash attention; layer scale, residual and GELU as operations of their own; all 48 blocks,
also those after the last one that is read.

B batch, N tokens, D width.
"""
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmseg_custom.layers.attention import sdpa
from mmseg_custom.models.backbones.intern_vit import InternViT6B


class OriginalBackbone(nn.Module):
    """A frozen backbone whose blocks run as in the original.

    Args:
        backbone: Network whose modules are shared.
    """

    def __init__(self, backbone: InternViT6B):
        super().__init__()
        self.backbone = backbone

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> a float32 feature map (B, D, h, w) for each of ``out_indices``."""
        net = self.backbone
        tokens, grid = net.patch_embed(images)
        tokens = net._add_positions(tokens, grid)
        maps = []
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            for i, block in enumerate(net.blocks):
                tokens = _block(block, tokens)
                if i in net.out_indices:
                    maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, grid))
        return [x.contiguous().float() for x in maps]


def _block(block: nn.Module, x: Tensor) -> Tensor:
    """(B, N, D) -> (B, N, D)."""
    x = x + _attention(block.attn, _norm(x, block.norm1.weight)) * block.ls1.gamma
    hidden = F.gelu(block.mlp.fc1(_norm(x, block.norm2.weight)))
    return x + block.mlp.fc2(hidden) * block.ls2.gamma


def _attention(attention: nn.Module, x: Tensor) -> Tensor:
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    q, k = _norm(q, attention.q_norm.weight), _norm(k, attention.k_norm.weight)
    q, k, v = (y.unflatten(-1, (attention.num_heads, -1)) for y in (q, k, v))
    return attention.proj(sdpa(q, k, v).flatten(2))


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    exact = x.float()
    exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + 1e-6)
    return weight * exact.to(x.dtype)
