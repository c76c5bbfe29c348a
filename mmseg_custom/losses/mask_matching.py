"""Losses of queries that are matched with the masks of an image, by transformers' own code.

Cheng et al., "Masked-attention Mask Transformer", 2022. transformers takes seconds to import, and
is imported when the first loss is computed. B images, Q queries, K classes, T masks of all images,
H W pixels of the labels, h w pixels of the predicted masks.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import InputError

Prediction = tuple[Tensor, Tensor]  # logits of masks (B, Q, h, w) and of classes (B, Q, K + 1)
_assumed: ContextVar[int | None] = ContextVar('assumed', default=None)


@contextmanager
def assumed_masks(number: int) -> Iterator[None]:
    """Assumes this number of masks in each image, for fake tensors, whose labels have no values.

    Masks are then matched with queries in order.
    """
    token = _assumed.set(number)
    try:
        yield
    finally:
        _assumed.reset(token)


@dataclass(frozen=True)
class MaskLossOptions:
    """Options of the losses, which are those of the matching too.

    Attributes:
        num_classes: K.
        class_weight: Weight of the cross-entropy of the classes.
        mask_weight: Weight of the binary cross-entropy of the masks.
        dice_weight: Weight of the Dice loss of the masks.
        no_object_weight: Weight of queries without a mask in the cross-entropy of the classes.
        num_points: Number of points of a mask at which it is compared.
        oversample_ratio: Number of points drawn for each that is kept of the uncertain ones.
        importance_sample_ratio: Share of the points that are those the network is least sure of.
        matching: Which query is compared with a mask: the one that a bipartite matching finds, or,
            'fixed', query k with the mask of class k.
    """
    num_classes: int
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75
    matching: str = 'bipartite'


@dataclass(frozen=True)
class MaskTargets:
    """The masks of a batch of images: one for each class that occurs in an image.

    Attributes:
        masks: Masks of each image, (T_i, H, W), booleans.
        classes: Their classes, (T_i).
    """
    masks: tuple[Tensor, ...]
    classes: tuple[Tensor, ...]

    @property
    def counts(self) -> list[int]:
        """Number of masks of each image."""
        return [len(classes) for classes in self.classes]


def mask_targets(labels: Tensor, num_classes: int, ignore_index: int | None = 255) -> MaskTargets:
    """Splits label maps into masks.

    Pixels with the ignored label belong to no mask. As published, a mask is compared at them too:
    there they count as its background.

    Args:
        labels: (B, H, W), integers.
        num_classes: K.
        ignore_index: Label without a class.
    """
    known = (labels >= 0) & (labels < num_classes)
    if ignore_index is not None:
        known &= labels != ignore_index
    labels = labels.where(known, num_classes)
    if (number := _assumed.get()) is not None:
        classes = torch.arange(min(number, num_classes), device=labels.device)
        return MaskTargets(tuple(each == classes[:, None, None] for each in labels),
                           (classes,) * len(labels))
    occurs = labels.new_zeros(len(labels), num_classes + 1, dtype=torch.bool)
    occurs.scatter_(1, labels.flatten(1), True)
    images, classes = occurs[:, :num_classes].nonzero(as_tuple=True)
    counts = occurs[:, :num_classes].sum(1).tolist()
    masks = labels[images] == classes[:, None, None]  # (T, H, W)
    return MaskTargets(masks.split(counts), classes.split(counts))


def mask_losses(predictions: list[Prediction], targets: MaskTargets, options: MaskLossOptions,
                over_ranks: bool = False) -> dict[str, Tensor]:
    """Computes the weighted losses of predictions, summed over them.

    Args:
        predictions: Predictions after each block, all of which are compared with the targets.
        targets: Masks of the images.
        options: Weights and points.
        over_ranks: Whether the losses of masks are divided by the mean number of masks of all
            ranks, which must then call this function equally often; else by that of this rank.

    Returns:
        ``loss_cls``, ``loss_mask`` and ``loss_dice``, each ().

    Raises:
        InputError: If transformers or scipy is missing.
    """
    device = predictions[0][0].device
    criterion = _criterion(options, device)
    masks, classes = [each.float() for each in targets.masks], list(targets.classes)
    number = _mean_number(sum(targets.counts), device, over_ranks)
    total = dict.fromkeys(('loss_cls', 'loss_mask', 'loss_dice'), torch.zeros((), device=device))
    for mask_logits, class_logits in predictions:
        indices = (_fixed_matching(targets, options)
                   if options.matching == 'fixed' or _assumed.get() is not None else
                   criterion.matcher(mask_logits, class_logits, masks, classes))
        of_classes = criterion.loss_labels(class_logits, classes, indices)
        of_masks = (criterion.loss_masks(mask_logits, masks, indices, number)
                    if any(targets.counts) else
                    dict.fromkeys(('loss_mask', 'loss_dice'), mask_logits.sum() * 0))
        for name, weight, value in (
                ('loss_cls', options.class_weight, of_classes['loss_cross_entropy']),
                ('loss_mask', options.mask_weight, of_masks['loss_mask']),
                ('loss_dice', options.dice_weight, of_masks['loss_dice'])):
            total[name] = total[name] + weight * value
    return total


def _fixed_matching(targets: MaskTargets, options: MaskLossOptions) -> list[tuple[Tensor, Tensor]]:
    """Returns the queries of each image that are compared with masks, and the masks' numbers."""
    by_class = options.matching == 'fixed'
    return [(classes if by_class else torch.arange(len(classes)), torch.arange(len(classes)))
            for classes in targets.classes]


def _criterion(options: MaskLossOptions, device: torch.device) -> Any:
    """Builds transformers' losses with their matcher.

    They are not kept: their tensor of weights could be a fake one. It is filled on the device: a
    copy from the host would wait for the GPU.
    """
    config = _criterion_config(options)
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss
    with device:
        return Mask2FormerLoss(config, weight_dict={})


@cache
def _criterion_config(options: MaskLossOptions) -> Any:
    """Returns the options in transformers' form."""
    require_mask_libraries()
    from transformers import Mask2FormerConfig
    config = Mask2FormerConfig(  # which refuses whole numbers for floats
        class_weight=float(options.class_weight), mask_weight=float(options.mask_weight),
        dice_weight=float(options.dice_weight), no_object_weight=float(options.no_object_weight),
        train_num_points=options.num_points, oversample_ratio=float(options.oversample_ratio),
        importance_sample_ratio=float(options.importance_sample_ratio))
    config.num_labels = options.num_classes
    return config


def require_mask_libraries() -> None:
    """Checks that the libraries of the losses are installed, without importing them.

    Raises:
        InputError: Naming the one that is missing.
    """
    for name in ('transformers', 'scipy'):
        if find_spec(name) is None:
            raise InputError(f'training with masks needs {name}, which is not installed: pip '
                             "install 'mmseg_custom[masks]' (testing a trained head does not need "
                             'it)')


def _mean_number(number: int, device: torch.device, over_ranks: bool) -> Tensor:
    """Returns the number of masks, at least 1, or its mean over the ranks."""
    mean = torch.tensor(float(number), device=device)
    if over_ranks and dist.is_available() and dist.is_initialized():
        mean /= dist.get_world_size()
        dist.all_reduce(mean)
    return mean.clamp(min=1)
