"""Makes mmseg know the network: its classes go into mmseg's registries, under their own names.

It is a step of its own, since backbones, heads and windows are also used without mmseg: no class
registers itself where it is defined.
"""
from mmseg.models import decode_heads as of_mmseg
from mmseg.models.builder import BACKBONES, HEADS, LOSSES, SEGMENTORS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

from .backbones.frozen_vit import FrozenViT
from .backbones.intern_vit import InternViT6B
from .backbones.intern_vit_adapter import InternViTAdapter
from .decode_heads.decode_head import DecodeHead
from .decode_heads.fcn_head import FCNHead
from .decode_heads.plain_mask_head import PlainMaskHead
from .decode_heads.uper_head import UPerHead
from .losses import CrossEntropyLoss, DiceLoss, LovaszLoss, TverskyLoss
from .segmentors.encoder_decoder import InternViTSegmentor


def register_all() -> None:
    """Registers backbones, heads, losses and the segmentor.

    Raises:
        KeyError: If another class has the name of one that does not take the place of mmseg's.
    """
    register_backbones()
    register_heads()
    register_losses()
    register_segmentors()


def register_backbones() -> None:
    """Registers the backbones."""
    for backbone in (InternViT6B, InternViTAdapter, FrozenViT):
        BACKBONES.register_module(module=backbone)


def register_heads() -> None:
    """Registers the decode heads: two of them in the places of mmseg's.

    To ``isinstance`` and ``issubclass`` they are heads of mmseg, as plugins may expect.
    """
    for head in (FCNHead, UPerHead):
        HEADS.register_module(module=head, force=True)
    HEADS.register_module(module=PlainMaskHead)
    for ours, theirs in ((DecodeHead, BaseDecodeHead), (FCNHead, of_mmseg.FCNHead),
                         (UPerHead, of_mmseg.UPerHead)):
        theirs.register(ours)


def register_losses() -> None:
    """Registers the losses, all in the places of mmseg's."""
    for loss in (CrossEntropyLoss, DiceLoss, LovaszLoss, TverskyLoss):
        LOSSES.register_module(module=loss, force=True)


def register_segmentors() -> None:
    """Registers the segmentor."""
    SEGMENTORS.register_module(module=InternViTSegmentor)
