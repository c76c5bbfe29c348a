"""The network: backbone, heads, losses and segmentor.

Classes are imported where they are used: the segmentor and the losses are mmseg's, the rest needs
neither mmseg nor mmcv. :mod:`.registration` makes them known to mmseg.
"""
from importlib import import_module
from typing import TYPE_CHECKING

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

_MODULES = {
    'FrozenViT': '.backbones.frozen_vit',
    'InternViT6B': '.backbones.intern_vit',
    'InternViTAdapter': '.backbones.intern_vit_adapter',
    'FCNHead': '.decode_heads.fcn_head',
    'PlainMaskHead': '.decode_heads.plain_mask_head',
    'UPerHead': '.decode_heads.uper_head',
    'InternViTSegmentor': '.segmentors.encoder_decoder',
}


def __getattr__(name: str) -> type:
    """Imports the module of a class."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_MODULES.get(name, '.losses'), __name__), name)
