"""The losses of a decode head: plain cross-entropy in strips, all others at every pixel.

B images, K classes, h w grid of the logits, H W pixels.
"""
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...layers.resize import resize_bilinear
from ...losses import upsampled_cross_entropy

NOTHING = -100  # a label that no pixel has
EPS = torch.finfo(torch.float32).eps


def build_losses(options: Any) -> nn.Module | None:
    """Builds the loss of a head by mmseg's registry; a list of several; None of None.

    Raises:
        InputError: If the options are of another kind.
    """
    if options is None:
        return None
    if not isinstance(options, (dict, list, tuple)):
        raise InputError(f"loss_decode={options!r}: expected dict(type='...', ...), or several")
    from mmseg.models.builder import build_loss
    return (build_loss(options) if isinstance(options, dict)
            else nn.ModuleList(build_loss(each) for each in options))


def build_sampler(options: dict | None, head: nn.Module) -> Any:
    """Builds what chooses the pixels that a head learns from, by mmseg's registry."""
    if options is None:
        return None
    from mmseg.core import build_pixel_sampler
    return build_pixel_sampler(options, context=head)


def in_strips(head: nn.Module) -> bool:
    """Returns whether the loss of a head is one that :func:`head_losses` computes."""
    loss = head.loss_decode
    if loss is None or head.sampler is not None:
        return False
    # Who has a loss has mmseg.
    from mmseg.models.losses import CrossEntropyLoss as MMSegCrossEntropyLoss

    from ..losses import CrossEntropyLoss
    return (type(loss) in (CrossEntropyLoss, MMSegCrossEntropyLoss)
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
        logits, labels.squeeze(1), ignore_index=_ignored(head), align_corners=head.align_corners,
        avg_non_ignore=head.loss_decode.avg_non_ignore,
        class_weight=None if weight is None else torch.tensor(weight, dtype=logits.dtype).to(
            logits.device, non_blocking=True))  # a blocking copy would wait for the GPU
    return head.loss_decode.loss_weight * loss, accuracy


def pixel_losses(head: nn.Module, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Computes a head's losses of logits that are upsampled to every pixel, and the accuracy.

    Losses of one name are added up.

    Args:
        head: Decode head.
        logits: (B, K, h, w).
        labels: (B, 1, H, W).

    Raises:
        InputError: If the head has no loss.
    """
    if head.loss_decode is None:
        raise InputError(f'{type(head).__name__}: loss_decode=None: expected a loss to train with, '
                         "e.g. loss_decode=dict(type='CrossEntropyLoss')")
    pixels = resize_bilinear(logits, labels.shape[2:], head.align_corners)
    weight = None if head.sampler is None else head.sampler.sample(pixels, labels)
    several = isinstance(head.loss_decode, nn.ModuleList)
    found: dict[str, Tensor] = {}
    for loss in head.loss_decode if several else [head.loss_decode]:
        value = loss(pixels, labels.squeeze(1), weight=weight, ignore_index=head.ignore_index)
        name = loss.loss_name
        found[name] = found[name] + value if name in found else value
    found['acc_seg'] = (one_channel_accuracy(head, logits, labels) if head.out_channels == 1
                        else _accuracy(pixels, labels.squeeze(1), head.ignore_index))
    return found


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
        ignore_index=_ignored(head), align_corners=head.align_corners)[1]


def _accuracy(logits: Tensor, labels: Tensor, ignore_index: int | None) -> Tensor:
    """Computes the accuracy (1,) in percent of the pixels that count, and 0 where none does.

    Args:
        logits: (B, K, H, W).
        labels: (B, H, W).
        ignore_index: Label of pixels that do not count.
    """
    counts = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else (
        labels != ignore_index)
    best = logits.topk(1, dim=1)[1].squeeze(1)  # chooses among equal logits as mmseg's accuracy
    hits = ((best == labels) & counts).float().sum().reshape(1)
    number = counts.sum()
    # Both sums have mmseg's EPS, for equal bits, and the quotient its double precision.
    return (hits + EPS) * (100.0 / (number.double() + EPS)).float() * (number > 0)


def _ignored(head: nn.Module) -> int:
    """Returns the label without a loss; with None all labels count."""
    return NOTHING if head.ignore_index is None else head.ignore_index
