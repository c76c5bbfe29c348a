"""Registers the network: backbone, heads, losses and segmentor."""
from .backbones.frozen_vit import FrozenViT
from .backbones.intern_vit import InternViT6B
from .backbones.intern_vit_adapter import InternViTAdapter
from .decode_heads.fcn_head import FCNHead
from .decode_heads.plain_mask_head import PlainMaskHead
from .decode_heads.uper_head import UPerHead
from .losses import CrossEntropyLoss, DiceLoss, LovaszLoss, TverskyLoss
from .registration import register_heads
from .segmentors.encoder_decoder import InternViTSegmentor

register_heads()

__all__ = ['CrossEntropyLoss', 'DiceLoss', 'FCNHead', 'FrozenViT', 'InternViT6B',
           'InternViTAdapter', 'InternViTSegmentor', 'LovaszLoss', 'PlainMaskHead', 'TverskyLoss',
           'UPerHead']
