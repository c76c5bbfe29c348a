"""Registers the network: backbone and head."""
from .backbones.intern_vit import InternViT6B
from .decode_heads.fcn_head import FCNHead

__all__ = ['FCNHead', 'InternViT6B']
