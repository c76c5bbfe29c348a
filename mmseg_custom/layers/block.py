"""The pre-norm transformer block with layer scale.

B batch, N tokens, D width.
"""
import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from .attention import Attention
from .norm import build_norm


class LayerScale(nn.Module):
    """Multiplies each channel by a learned factor (Touvron et al., "CaiT", 2021).

    Args:
        dim: D.
        init_values: Initial value of the factors.
        force_fp32: Whether to multiply in float32 and round once, as some published recipes do.
    """

    def __init__(self, dim: int, init_values: float, force_fp32: bool = False):
        super().__init__()
        self.force_fp32 = force_fp32
        self.gamma = nn.Parameter(torch.full((dim,), float(init_values)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self.force_fp32:
            return (x.float() * self.gamma.float()).to(x.dtype)
        return x * self.gamma


class GELU(nn.GELU):
    """The exact (erf) GELU; overwrites its input where autograd does not need it.

    For the MLP, where nothing else reads the first layer's output: at width 3200 that saves the
    largest buffer of the network, 33 MB a crop of 504 pixels in bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if torch.is_grad_enabled():
            return super().forward(x)
        return torch.ops.aten.gelu_(x)


class Block(nn.Module):
    """x + attention, then x + MLP, each on normalised tokens and scaled by channel.

    Args:
        dim: D.
        num_heads: Number of attention heads.
        mlp_ratio: Width of the MLP over D.
        qkv_bias: See :class:`.attention.Attention`.
        qk_normalization: See :class:`.attention.Attention`.
        norm_type: Type of all norms: see :func:`.norm.build_norm`.
        init_values: Initial layer scale; 0 or None for no layer scale.
        layerscale_force_fp32: See :class:`LayerScale`.
        drop_path: Stochastic depth rate: probability that a branch of a sample is dropped.
        use_flash_attn: See :func:`.attention.select_kernel`.

    Attributes:
        adds_as_frozen: Whether branches are added as in a frozen block under autograd, too, so that
            adapters start from its bits.
    """
    adds_as_frozen = False

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False,
                 qk_normalization: bool = True, norm_type: str = 'rms_norm',
                 init_values: float | None = 0.1, layerscale_force_fp32: bool = False,
                 drop_path: float = 0.0, use_flash_attn: bool = False):
        super().__init__()

        def scale() -> nn.Module:
            return (LayerScale(dim, init_values, layerscale_force_fp32) if init_values
                    else nn.Identity())

        self.norm1 = build_norm(norm_type, dim)
        self.attn = Attention(dim, num_heads, qkv_bias, qk_normalization, norm_type,
                              use_flash_attn)
        self.ls1 = scale()
        self.norm2 = build_norm(norm_type, dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=GELU)
        self.ls2 = scale()
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D).

        Args:
            x: Tokens.
            mask: Which tokens attend to which others: see :class:`.attention.Attention`.
        """
        x = self._add(x, self.ls1, self.attn(self.norm1(x), mask))
        x = self._add(x, self.ls2, self.mlp(self.norm2(x)))
        return x

    def _add(self, x: Tensor, scale: nn.Module, branch: Tensor) -> Tensor:
        """Computes x + drop_path(scale(branch)), in one pass over memory without autograd."""
        plain = isinstance(scale, LayerScale) and not scale.force_fp32
        drops = self.training and not isinstance(self.drop_path, nn.Identity)
        frozen = self.adds_as_frozen or not (self.training or torch.is_grad_enabled())
        if plain and frozen and not drops:
            return torch.addcmul(x, scale.gamma, branch)
        return x + self.drop_path(scale(branch))
