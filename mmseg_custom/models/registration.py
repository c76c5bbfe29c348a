"""Registers networks with MMSegmentation, whose configs name them by their type.

Their classes know nothing of it, so that they are defined and run where neither mmseg nor mmcv is.
"""
from mmseg.models import decode_heads as of_mmseg
from mmseg.models.builder import HEADS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

from .decode_heads.decode_head import DecodeHead
from .decode_heads.fcn_head import FCNHead
from .decode_heads.plain_mask_head import PlainMaskHead
from .decode_heads.uper_head import UPerHead


def register_heads() -> None:
    """Registers the decode heads; those of mmseg's names replace mmseg's.

    To ``isinstance`` and ``issubclass`` they are heads of mmseg, as plugins may expect.
    """
    for kind in (FCNHead, PlainMaskHead, UPerHead):
        HEADS.register_module(module=kind, force=True)
    for ours, theirs in ((DecodeHead, BaseDecodeHead), (FCNHead, of_mmseg.FCNHead),
                         (UPerHead, of_mmseg.UPerHead)):
        theirs.register(ours)
