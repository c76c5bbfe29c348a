"""Registers the network: backbone, heads, losses and segmentor."""
from .backbones.intern_vit import InternViT6B
from .backbones.intern_vit_adapter import InternViTAdapter
from .decode_heads.fcn_head import FCNHead
from .decode_heads.uper_head import UPerHead
from .losses import CrossEntropyLoss, DiceLoss, LovaszLoss, TverskyLoss
from .segmentors.encoder_decoder import InternViTSegmentor

__all__ = ['CrossEntropyLoss', 'DiceLoss', 'FCNHead', 'InternViT6B', 'InternViTAdapter',
           'InternViTSegmentor', 'LovaszLoss', 'TverskyLoss', 'UPerHead']
