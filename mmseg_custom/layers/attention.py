"""Self-attention over tokens, and the one place that chooses its kernel.

B batch, N tokens, D width, d = D / heads.
"""
import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from .norm import build_norm

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v (B, N, heads, d) -> (B, N, heads, d)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Runs PyTorch's scaled dot product attention, on every device and in every dtype.

    Args:
        q: (B, R, heads, d), as flash-attn wants it; R may be less than N.
        k: (B, N, heads, d).
        v: Like k.
        mask: Boolean, broadcastable to (B, heads, R, N): True where a token (row) attends to
            another (column). None: everywhere.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)


def _on_flash(flash_attn_func: Callable) -> Kernel:
    """Returns a kernel that uses flash-attn where it can, and SDPA on the CPU and in float32.

    The backward pass adds up its parts in a fixed order where a run is deterministic.
    """

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not q.is_cuda or q.dtype not in (torch.float16, torch.bfloat16):
            return sdpa(q, k, v)
        out = flash_attn_func(q, k, v, deterministic=torch.are_deterministic_algorithms_enabled())
        return out[0] if isinstance(out, tuple) else out  # some releases of 3 add the log-sum-exp

    return kernel


@cache
def select_kernel(use_flash_attn: bool) -> Kernel:
    """Chooses the attention kernel, once for a process, and logs the choice with its reason.

    The rule depends on the GPU and on what is installed, so that all processes of a run, and the
    run that is resumed, choose the same:

    1. flash-attn 3 on a Hopper GPU, for which it is written.
    2. PyTorch's SDPA where it prefers its cuDNN kernel (Hopper and data centre Blackwell, from
       PyTorch 2.11 on), which is faster there than flash-attn 2.
    3. flash-attn 2. SDPA's own flash kernel is the same algorithm, so this is a matter of taste.
    4. SDPA.

    Args:
        use_flash_attn: Whether flash-attn is used by this rule; else SDPA. Nothing that is missing
            is an error.
    """
    kernel: Kernel = sdpa
    name, reason = 'torch SDPA', f'use_flash_attn={use_flash_attn}'
    if use_flash_attn and torch.cuda.is_available():
        try:
            name, kernel, why = _fastest_kernel(torch.cuda.get_device_capability(), sdpa_backend())
        except RuntimeError as error:  # a run on the CPU, beside a GPU that is full or held
            why = f'the GPU takes no process: {str(error).splitlines()[0]}'
        reason += f', {why}'
    logging.getLogger('mmseg.details').info('attention kernel: %s (%s)', name, reason)
    return kernel


def sdpa_backend(head_dim: int = 64) -> str:
    """Returns the name of the kernel that SDPA takes for bfloat16 on this GPU, as torch names it.

    This asks PyTorch, which weighs the GPU, cuDNN's version and its own environment variables.
    """
    x = torch.empty(1, 1, 64, head_dim, dtype=torch.bfloat16, device='cuda')
    return SDPBackend(torch._fused_sdp_choice(x, x, x)).name


def _fastest_kernel(capability: tuple[int, int], backend: str) -> tuple[str, Kernel, str]:
    """Returns name, function and reason of the kernel for a GPU, by the rule above.

    Args:
        capability: Compute capability of the GPU.
        backend: Result of :func:`sdpa_backend`.
    """
    gpu = f'sm_{capability[0]}{capability[1]}'
    if capability[0] == 9 and (found := _flash_attn('flash_attn_interface')) is not None:
        return 'flash-attn 3', _on_flash(found), f'written for {gpu}'
    if backend == 'CUDNN_ATTENTION':
        return 'torch SDPA', sdpa, f'whose cuDNN kernel is faster on {gpu} than flash-attn 2'
    if (found := _flash_attn('flash_attn')) is not None:
        return 'flash-attn 2', _on_flash(found), 'installed'
    return 'torch SDPA', sdpa, f'{backend.lower()}, no flash-attn found'


def _flash_attn(module: str) -> Callable | None:
    """Returns the function of a release of flash-attn; None if it does not import or is too old."""
    try:
        function = import_module(module).flash_attn_func
    except Exception as error:  # a wheel built for another torch raises OSError and others
        if not isinstance(error, ModuleNotFoundError):
            logging.getLogger('mmseg').warning('%s is installed but failed to load: %r',
                                               module, error)
        return None
    if 'deterministic' not in signature(function).parameters:
        logging.getLogger('mmseg').warning('%s is too old: 2.4.1 or newer is needed', module)
        return None
    return function


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

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D).

        Args:
            x: Tokens.
            mask: Boolean, broadcastable to (B, heads, R, N): True where one of the first R tokens
                (rows) attends to another (column). The others attend to all. None: all do.
        """
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # (B, N, 3*D) -> 3 x (B, N, D)
        q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)) for y in (q, k, v))  # (B, N, heads, d)
        out = self.kernel(q, k, v) if mask is None else self._masked(q, k, v, mask)
        return self.proj(out.flatten(2))

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Runs SDPA on the rows of a mask, and the fast kernels, which know none, on the others."""
        rows = mask.shape[-2]
        parts = [sdpa(q[:, :rows], k, v, mask)]
        if rows < q.shape[1]:
            parts.append(self.kernel(q[:, rows:], k, v))
        return torch.cat(parts, dim=1)
