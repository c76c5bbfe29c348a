"""The network: backbone, heads, losses and segmentor.

Classes are imported where they are used: the segmentor and the losses are mmseg's, the rest needs
neither mmseg nor mmcv. :mod:`.registration` makes them known to mmseg.
"""
from typing import TYPE_CHECKING

from ..late_imports import late_names

if TYPE_CHECKING:
    from .backbones.frozen_vit import FrozenViT
    from .backbones.intern_vit import InternViT6B
    from .backbones.intern_vit_adapter import InternViTAdapter
    from .decode_heads.fcn_head import FCNHead
    from .decode_heads.plain_mask_head import PlainMaskHead
    from .decode_heads.uper_head import UPerHead
    from .losses import CrossEntropyLoss, DiceLoss, LovaszLoss, TverskyLoss
    from .segmentors.encoder_decoder import InternViTSegmentor

__all__ = ['CrossEntropyLoss', 'DiceLoss', 'FCNHead', 'FrozenViT', 'InternViT6B',
           'InternViTAdapter', 'InternViTSegmentor', 'LovaszLoss', 'PlainMaskHead', 'TverskyLoss',
           'UPerHead']

__getattr__ = late_names(__name__, {
    'backbones.frozen_vit': ['FrozenViT'],
    'backbones.intern_vit': ['InternViT6B'],
    'backbones.intern_vit_adapter': ['InternViTAdapter'],
    'decode_heads.fcn_head': ['FCNHead'],
    'decode_heads.plain_mask_head': ['PlainMaskHead'],
    'decode_heads.uper_head': ['UPerHead'],
    'losses': ['CrossEntropyLoss', 'DiceLoss', 'LovaszLoss', 'TverskyLoss'],
    'segmentors.encoder_decoder': ['InternViTSegmentor'],
})
