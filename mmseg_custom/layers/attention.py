"""Self-attention over tokens, and the one place that chooses its kernel.

B batch, N tokens, D width, d = D / heads.
"""
import logging
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import build_norm

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v (B, N, heads, d) -> (B, N, heads, d)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Runs PyTorch's scaled dot product attention, on every device and in every dtype."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _on_flash(flash_attn_func: Callable) -> Kernel:
    """Returns a kernel that uses flash-attn where it can, and SDPA on the CPU and in float32."""

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not q.is_cuda or q.dtype not in (torch.float16, torch.bfloat16):
            return sdpa(q, k, v)
        out = flash_attn_func(q, k, v)
        return out[0] if isinstance(out, tuple) else out  # some releases of 3 add the log-sum-exp

    return kernel


@cache
def select_kernel(use_flash_attn: bool) -> Kernel:
    """Chooses the attention kernel, once for a process, and logs the choice.

    Args:
        use_flash_attn: Whether to use the fastest kernel that is installed: flash-attn 3 on a
            Hopper GPU, flash-attn 2, or PyTorch's SDPA. Nothing that is missing is an error.
    """
    kernel: Kernel = sdpa
    name = 'torch SDPA'
    if use_flash_attn and torch.cuda.is_available():
        found = _find_flash_attn(torch.cuda.get_device_capability()[0])
        if found is not None:
            name, kernel = found[0], _on_flash(found[1])
    logging.getLogger('mmseg').info('attention kernel: %s (use_flash_attn=%s)', name,
                                    use_flash_attn)
    return kernel


def _find_flash_attn(capability_major: int) -> tuple[str, Callable] | None:
    """Returns (name, function) of the newest flash-attn that imports on this GPU."""
    candidates = [('flash-attn 2', 'flash_attn')]
    if capability_major == 9:  # version 3 is written for Hopper alone
        candidates.insert(0, ('flash-attn 3', 'flash_attn_interface'))
    for name, module in candidates:
        try:
            return name, __import__(module).flash_attn_func
        except Exception as error:  # a wheel built for another torch raises OSError and others
            if not isinstance(error, ModuleNotFoundError):
                logging.getLogger('mmseg').warning('%s is installed but failed to load: %r',
                                                   name, error)
    return None


class Attention(nn.Module):
    """Multi-head self-attention, with the q and k norms of InternViT.

    q and k are normalised over all D channels, before they are split into heads.

    Args:
        dim: D.
        num_heads: Number of heads; must divide D.
        qkv_bias: Whether q, k and v have a bias. The output projection always has one.
        qk_normalization: Whether q and k are normalised.
        norm_type: Type of those two norms: see :func:`.norm.build_norm`.
        use_flash_attn: See :func:`select_kernel`.

    Raises:
        ValueError: If ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = False,
                 qk_normalization: bool = True, norm_type: str = 'rms_norm',
                 use_flash_attn: bool = False):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'embed_dim {dim} is not divisible by num_heads {num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = build_norm(norm_type, dim) if qk_normalization else nn.Identity()
        self.k_norm = build_norm(norm_type, dim) if qk_normalization else nn.Identity()
        self.proj = nn.Linear(dim, dim)
        self.kernel = select_kernel(use_flash_attn)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # (B, N, 3*D) -> 3 x (B, N, D)
        q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)) for y in (q, k, v))  # (B, N, heads, d)
        return self.proj(self.kernel(q, k, v).flatten(2))
