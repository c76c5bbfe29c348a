"""The loss of a decode head, computed in strips where it is mmseg's plain cross-entropy.

B images, K classes, h w grid of the logits, H W pixels.
"""
import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss as MMSegCrossEntropyLoss
from torch import Tensor, nn

from ...losses import upsampled_cross_entropy
from ..losses import CrossEntropyLoss


class UpsampledLoss(BaseDecodeHead):
    """Mixin for a decode head of mmseg that replaces its loss, in front of its class."""

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


def in_strips(head: nn.Module) -> bool:
    """Returns whether the loss of a head is one that :func:`head_losses` computes."""
    loss = head.loss_decode
    return (type(loss) in (CrossEntropyLoss, MMSegCrossEntropyLoss) and head.sampler is None
            and loss.reduction == 'mean' and not loss.use_sigmoid and not loss.use_mask)


def head_losses(head: nn.Module, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the weighted loss (...) and the accuracy (...) in percent, with a head's settings.

    Args:
        head: Decode head for which :func:`in_strips` holds.
        logits: (..., B, K, h, w), logits of this head or of several with the same loss.
        labels: (B, 1, H, W).
    """
    weight = head.loss_decode.class_weight
    loss, accuracy = upsampled_cross_entropy(
        logits, labels.squeeze(1),
        ignore_index=-100 if head.ignore_index is None else head.ignore_index,  # as mmseg's
        align_corners=head.align_corners, avg_non_ignore=head.loss_decode.avg_non_ignore,
        class_weight=None if weight is None else torch.tensor(weight, dtype=logits.dtype).to(
            logits.device, non_blocking=True))  # a blocking copy would wait for the GPU
    return head.loss_decode.loss_weight * loss, accuracy


def one_channel_accuracy(head: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the accuracy (...) in percent of a head of one channel, by its threshold.

    Args:
        head: Decode head.
        logits: (B, 1, h, w), of the second class.
        labels: (B, 1, H, W).
    """
    least = torch.logit(torch.tensor(float(head.threshold)), eps=1e-6).item()
    of_second = logits.detach() - least
    return upsampled_cross_entropy(
        torch.cat([torch.zeros_like(of_second), of_second], 1), labels.squeeze(1),
        ignore_index=head.ignore_index, align_corners=head.align_corners)[1]
