"""Registers the network: backbone, heads and segmentor."""
from .backbones.intern_vit import InternViT6B
from .decode_heads.fcn_head import FCNHead
from .decode_heads.uper_head import UPerHead
from .segmentors.encoder_decoder import InternViTSegmentor

__all__ = ['FCNHead', 'InternViT6B', 'InternViTSegmentor', 'UPerHead']
