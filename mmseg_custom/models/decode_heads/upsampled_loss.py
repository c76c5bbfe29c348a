"""The loss in strips for heads that inherit from mmseg's; ours have it from ``DecodeHead``.

It is the one file here that needs mmseg, which these heads bring along.
"""
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from .head_loss import head_losses, in_strips, one_channel_accuracy


class UpsampledLoss(BaseDecodeHead):
    """Mixin for a decode head of mmseg that replaces its loss, in front of its class.

    Attributes:
        takes_casts: See :class:`.decode_head.DecodeHead`.
    """
    takes_casts = True

    def losses(self, seg_logit: Tensor, seg_label: Tensor) -> dict[str, Tensor]:
        """Computes loss and accuracy, under mmseg's names.

        Args:
            seg_logit: (B, K, h, w).
            seg_label: (B, 1, H, W).
        """
        if not in_strips(self):
            found = super().losses(seg_logit, seg_label)
            if self.out_channels == 1:  # where mmseg takes the only channel for the best one
                found['acc_seg'] = one_channel_accuracy(self, seg_logit, seg_label)
            return found
        loss, accuracy = head_losses(self, seg_logit, seg_label)
        return {self.loss_decode.loss_name: loss, 'acc_seg': accuracy}
