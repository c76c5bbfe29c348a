"""What lets a vision transformer and a spatial prior exchange features (ViT-Adapter).

B batch, N patch tokens, M = sum of h*w tokens of the prior's levels, D width.
"""
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from .conv_ffn import ConvFFN
from .deformable_attention import DeformableAttention, Grid
from .init import init_by_fan_out

LEVELS = 3  # of the prior that are exchanged: strides 8, 16 and 32


class Injector(nn.Module):
    """Adds features of the prior to the tokens (Chen et al., "Vision Transformer Adapter", 2023).

    Args:
        dim: D.
        init_values: Initial factor of what is added; 0 starts from the pretrained network.
        attention: Options of :class:`.deformable_attention.DeformableAttention`.
    """

    def __init__(self, dim: int, init_values: float, **attention: Any):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init_values)))
        self.query_norm = nn.LayerNorm(dim)
        self.feat_norm = nn.LayerNorm(dim)
        self.attn = DeformableAttention(dim, num_levels=LEVELS, **attention)

    def forward(self, tokens: Tensor, priors: Tensor, grids: Sequence[Grid],
                prior_grids: Sequence[Grid]) -> Tensor:
        """Tokens (B, N, D) and priors (B, M, D), with their grids -> tokens (B, N, D)."""
        found = self.attn(self.query_norm(tokens), self.feat_norm(priors), grids, prior_grids)
        return tokens + self.gamma * found


class Extractor(nn.Module):
    """Adds features of the tokens to the prior (Chen et al., "Vision Transformer Adapter", 2023).

    Args:
        dim: D.
        ffn_ratio: Width of the feed-forward network over D; None for no such network.
        drop_path: Stochastic depth rate of that network.
        attention: Options of :class:`.deformable_attention.DeformableAttention`.
    """

    def __init__(self, dim: int, ffn_ratio: float | None, drop_path: float, **attention: Any):
        super().__init__()
        self.query_norm = nn.LayerNorm(dim)
        self.feat_norm = nn.LayerNorm(dim)
        self.attn = DeformableAttention(dim, num_levels=1, **attention)
        self.ffn = None if ffn_ratio is None else ConvFFN(dim, int(dim * ffn_ratio))
        if self.ffn is not None:
            self.ffn_norm = nn.LayerNorm(dim)
            self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, priors: Tensor, tokens: Tensor, prior_grids: Sequence[Grid],
                grids: Sequence[Grid]) -> Tensor:
        """Priors (B, M, D) and tokens (B, N, D), with their grids -> priors (B, M, D)."""
        priors = priors + self.attn(self.query_norm(priors), self.feat_norm(tokens), prior_grids,
                                    grids)
        if self.ffn is not None:
            priors = priors + self.drop_path(self.ffn(self.ffn_norm(priors), prior_grids))
        return priors


def init_interaction(module: nn.Module) -> None:
    """Initialises a part of an adapter: for ``nn.Module.apply``.

    Deformable attention comes after the layers inside it, and has values of its own.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, DeformableAttention):
        module.init_weights()
    else:
        init_by_fan_out(module)
