"""Registers the network: backbone and heads."""
from .backbones.intern_vit import InternViT6B
from .decode_heads.fcn_head import FCNHead
from .decode_heads.uper_head import UPerHead

__all__ = ['FCNHead', 'InternViT6B', 'UPerHead']
