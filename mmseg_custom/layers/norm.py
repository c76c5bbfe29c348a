"""The norms of the network: RMSNorm or LayerNorm of tokens, LayerNorm over channels of a grid.

N tokens, D width; B batch, C channels, h w patch grid.
"""
import logging
from functools import cache

from timm.layers.norm import LayerNorm2d
from torch import nn

from .rms_norm import RMSNorm

__all__ = ['LayerNorm2d', 'build_norm', 'rms_norm_class']

EPS = 1e-6


@cache
def rms_norm_class() -> type[nn.Module]:
    """Returns the RMSNorm to build with: apex's fused kernel where installed, else torch's.

    Both hold one parameter, ``weight`` (D,), and take their statistics in float32 (Zhang and
    Sennrich, "Root Mean Square Layer Normalization", 2019). The choice is made once and logged.
    ``pip install apex`` is another project without this class: NVIDIA's comes from source.
    """
    try:
        from apex.normalization import FusedRMSNorm
        FusedRMSNorm(1)  # looks for its compiled half only now, which may never have been built
    except Exception as error:  # a broken build of apex raises anything, not only ImportError
        reason = ' (apex is not installed)' if isinstance(error, ImportError) else (
            f' (apex failed to load: {error!r})')
        logging.getLogger('mmseg').debug('RMSNorm: torch.nn.RMSNorm%s', reason)
        return RMSNorm
    logging.getLogger('mmseg.details').info('RMSNorm: apex.normalization.FusedRMSNorm')
    return FusedRMSNorm


def build_norm(norm_type: str, dim: int) -> nn.Module:
    """Builds a norm over the last axis of (..., D).

    Args:
        norm_type: 'rms_norm' (InternViT-6B) or 'layer_norm' (InternViT-300M).
        dim: D.

    Raises:
        ValueError: If ``norm_type`` is neither.
    """
    if norm_type == 'rms_norm':
        return rms_norm_class()(dim, eps=EPS)
    if norm_type == 'layer_norm':
        return nn.LayerNorm(dim, eps=EPS)
    raise ValueError(f"norm_type {norm_type!r}: expected 'rms_norm' or 'layer_norm'")
