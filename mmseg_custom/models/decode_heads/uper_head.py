"""UPerNet's head: mmseg's (Xiao et al., 2018), whose loss needs no upsampled logits."""
from mmseg.models.builder import HEADS
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead

from .upsampled_loss import UpsampledLoss


@HEADS.register_module(force=True)
class UPerHead(UpsampledLoss, MMSegUPerHead):
    """``mmseg.models.decode_heads.UPerHead`` with :class:`.upsampled_loss.UpsampledLoss`."""
