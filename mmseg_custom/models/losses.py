"""The losses of mmseg, in which pixels that are ignored have no part: registered in their place.

In mmseg 0.30, Dice counts the probabilities of ignored pixels; Dice and Tversky take an
``ignore_index`` of their own, and not the head's; Lovasz is NaN where an image is ignored, and
fails where all but one of its pixels are; binary cross-entropy of one channel fails where all are.
Focal loss and cross-entropy are right. B images, K classes, H W pixels, P pixels that count.
"""
import torch
from mmseg.models import losses as theirs
from mmseg.models.losses.dice_loss import dice_loss
from mmseg.models.losses.lovasz_loss import lovasz_softmax, lovasz_softmax_flat
from mmseg.models.losses.utils import weight_reduce_loss
from torch import Tensor
from torch.nn import functional as F

LEAST = 1e-9  # smoothing of Dice without one: an image that is all ignored has 0 / 0


class CrossEntropyLoss(theirs.CrossEntropyLoss):
    """mmseg's cross-entropy; with ``use_sigmoid``, one class weight for each channel."""

    class_weight: list | None

    def forward(self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None,
                avg_factor: int | None = None, reduction_override: str | None = None,
                ignore_index: int = -100, **kwargs) -> Tensor:
        """Computes the loss of logits (B, K, H, W) and labels (B, H, W)."""
        if not self.use_sigmoid or cls_score.ndim != 4:
            return super().forward(cls_score, label, weight, avg_factor, reduction_override,
                                   ignore_index, **kwargs)
        if cls_score.shape[1] == 1 and not _counts(label, ignore_index).any():
            return cls_score.sum() * 0
        class_weight = _tensor(self.class_weight, cls_score)
        return self.loss_weight * self.cls_criterion(
            cls_score, label, weight, reduction=reduction_override or self.reduction,
            class_weight=None if class_weight is None else class_weight.view(-1, 1, 1),
            avg_factor=avg_factor, avg_non_ignore=self.avg_non_ignore, ignore_index=ignore_index,
            **kwargs)


class DiceLoss(theirs.DiceLoss):
    """mmseg's Dice loss, over the pixels that are not ignored."""

    def forward(self, pred: Tensor, target: Tensor, avg_factor: int | None = None,
                reduction_override: str | None = None, ignore_index: int | None = None,
                **kwargs) -> Tensor:
        """Computes the loss of logits (B, K, H, W) and labels (B, H, W).

        Args:
            pred: Logits.
            target: Labels.
            avg_factor: See mmseg's loss.
            reduction_override: See mmseg's loss.
            ignore_index: Ignored label of the head, beside that of the loss.
            **kwargs: Not used, as in mmseg.
        """
        classes = pred.shape[1]
        counts = _counts(target, ignore_index, self.ignore_index)
        one_hot = F.one_hot(target.long().where(counts, 0), classes)  # (B, H, W, K)
        left_out = [i for i in (self.ignore_index, ignore_index) if i in range(classes)]
        return self.loss_weight * dice_loss(
            F.softmax(pred, 1) * counts.unsqueeze(1), one_hot * counts.unsqueeze(-1),
            valid_mask=counts, reduction=reduction_override or self.reduction,
            avg_factor=avg_factor, smooth=max(self.smooth, LEAST), exponent=self.exponent,
            class_weight=_tensor(self.class_weight, pred),
            ignore_index=left_out[0] if left_out else None)


class TverskyLoss(theirs.TverskyLoss):
    """mmseg's Tversky loss, over the pixels that are not ignored."""

    def forward(self, pred: Tensor, target: Tensor, ignore_index: int | None = None,
                **kwargs) -> Tensor:
        """Computes the loss of logits (B, K, H, W) and labels (B, H, W), see :class:`DiceLoss`."""
        return super().forward(
            pred, target.where(_counts(target, ignore_index), self.ignore_index), **kwargs)


class LovaszLoss(theirs.LovaszLoss):
    """mmseg's Lovasz loss, which is 0 where all pixels are ignored."""

    def forward(self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None,
                avg_factor: int | None = None, reduction_override: str | None = None,
                ignore_index: int | None = 255, **kwargs) -> Tensor:
        """Computes the loss of logits (B, K, H, W) and labels (B, H, W)."""
        if self.cls_criterion is not lovasz_softmax:
            return super().forward(cls_score, label, weight, avg_factor, reduction_override,
                                   ignore_index=ignore_index, **kwargs)
        probabilities, counts = F.softmax(cls_score, 1), _counts(label, ignore_index)
        if not self.per_image:
            return self.loss_weight * self._of_pixels(probabilities, label, counts)
        images = [self._of_pixels(*(part[i:i + 1] for part in (probabilities, label, counts)))
                  for i in range(len(label))]
        return self.loss_weight * weight_reduce_loss(
            torch.stack(images), None, reduction_override or self.reduction, avg_factor)

    def _of_pixels(self, probabilities: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Computes the loss (...) of the pixels that count, of all images together."""
        of_pixels = probabilities.movedim(1, -1)[counts]  # (P, K)
        if not len(of_pixels):
            return probabilities.sum() * 0
        return lovasz_softmax_flat(of_pixels, label[counts], self.classes,
                                   _tensor(self.class_weight, probabilities))


def _counts(labels: Tensor, *ignored: int | None) -> Tensor:
    """Returns which pixels are not ignored, of the shape of the labels."""
    counts = torch.ones_like(labels, dtype=torch.bool)
    for number in ignored:
        if number is not None:
            counts &= labels != number
    return counts


def _tensor(weights: list | None, like: Tensor) -> Tensor | None:
    return None if weights is None else like.new_tensor(weights)
