"""Compares the classes of a network, a data set and a checkpoint."""
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmcv import Config
from mmseg.datasets import DATASETS
from mmseg.datasets.pipelines import LoadAnnotations
from mmseg.models.builder import HEADS, LOSSES, MODELS
from mmseg.models.decode_heads import STDCHead
from mmseg.models.losses.utils import get_class_weight
from mmseg.utils import get_root_logger
from torch.utils.data import Dataset

from ..checkpoint.checkpoint import Checkpoint
from ..datasets.class_names import (
    ClassMismatch,
    compare_classes,
    first_difference,
    plain_names,
)
from ..datasets.ground_truth import IGNORE_INDEX
from ..datasets.nesting import innermost_datasets, innermost_options
from ..errors import InputError, some_of
from ..plugins import is_known
from .config import heads_of, losses_of
from .options import RunOptions


def makes_labels(head: dict) -> bool:
    """Returns whether a head makes labels of its own, as STDC's does of the borders of classes."""
    kind = HEADS.get(head.get('type', ''))
    return kind is not None and issubclass(kind, STDCHead)


def classes_of(head: dict) -> int:
    """Returns the number of classes that a head tells apart.

    A single channel with a sigmoid, ``num_classes=1``, tells 1 from 0.
    """
    of_sigmoid = head['num_classes'] == 1 and all(loss.get('use_sigmoid')
                                                  for _, loss in losses_of(head))
    return 2 if of_sigmoid else head['num_classes']


def differing_heads(cfg: Config, classes: Sequence[str]) -> list[tuple[str, int]]:
    """Returns (key, value) of each ``num_classes`` that differs from the number of classes."""
    found = []
    for key, head in heads_of(cfg.model):
        number = classes_of(head) if 'num_classes' in head else len(classes)
        if number != len(classes) and not makes_labels(head):
            found.append((f'{key}.num_classes', number))
    return found


def check_class_weights(cfg: Config) -> None:
    """Checks that each loss has one class weight per class.

    A loss fails on a missing one in the first iteration, and ignores one too many. Losses of
    plugins are left alone.

    Raises:
        InputError: If a head has another number of them, or a file of them cannot be read.
    """
    for key, head in heads_of(cfg.model):
        for place, loss in losses_of(head):
            for name in ('class_weight', 'alpha') if is_known(LOSSES.get(loss.get('type'))) else ():
                _check_length(f'{key}.{place}.{name}', loss.get(name),
                              head.get('out_channels') or head.get('num_classes'))


def _check_length(key: str, weights: Any, expected: int | None) -> None:
    source = ''
    if isinstance(weights, str):
        source = f' in {weights}'
        try:
            weights = get_class_weight(weights)
        except Exception as error:  # depends on the reader of its format
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise InputError(f'{key}={weights!r} cannot be read: {reason}; expected a .npy, .json '
                             'or .yaml file of one number a class') from error
    if not isinstance(weights, (list, tuple, np.ndarray)) or expected in (None, len(weights)):
        return  # a single number is an option of some losses
    raise InputError(f'{key} has {len(weights)} numbers{source}: expected one for each of the '
                     f'{expected} classes of the head')


def check_single_channels(cfg: Config) -> None:
    """Checks that no head has a single channel under losses of a softmax.

    The softmax of one channel is 1 whatever the logit: the loss is constant, the gradient 0. Heads
    of plugins may have other losses, and are not looked at.

    Raises:
        InputError: If one has.
    """
    for key, head in heads_of(cfg.model):
        kind = HEADS.get(head.get('type', ''))
        if kind is not None and not is_known(kind):
            continue
        losses = [loss for _, loss in losses_of(head)]
        if (head.get('out_channels') or head.get('num_classes')) == 1 and all(
                map(_is_softmax, losses)):
            raise InputError(
                f'{key} has a single channel, whose softmax is always 1: nothing is learnt. Name '
                "the background as a class of its own, with num_classes=2, or set num_classes=2, "
                "out_channels=1 and loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)")


def _is_softmax(loss: dict) -> bool:
    kind = loss.get('type')
    if kind == 'CrossEntropyLoss':
        return not (loss.get('use_sigmoid') or loss.get('use_mask'))
    return kind in ('DiceLoss', 'TverskyLoss') or (
        kind == 'LovaszLoss' and loss.get('loss_type', 'multi_class') == 'multi_class')


def check_heads(cfg: Config, classes: Sequence[str], may_mean_more: bool = True,
                warns: bool = True) -> None:
    """Checks that the heads have the number of classes of the training data.

    With fewer, labels would be out of range for the loss. More are never learnt, and a test on the
    data would refuse the network; one more may be a class of the background that has no name.

    Args:
        cfg: Config of the network.
        classes: Names of the classes of the training data.
        may_mean_more: Whether more classes may be meant: see :func:`may_mean_more`.
        warns: Whether what may be meant gives a warning.

    Raises:
        InputError: If a head has another number of classes, and it cannot be meant.
    """
    for key, number in differing_heads(cfg, classes):
        text = (f'{key} is {number}, and the training data has {len(classes)} classes '
                f'({some_of(name.strip() for name in classes)}): set num_classes={len(classes)}')
        kind = HEADS.get(_head_at(cfg, key).get('type', ''))
        of_plugin = kind is not None and not is_known(kind)
        if not of_plugin and (number < len(classes)
                              or number > len(classes) + 1 and not may_mean_more):
            raise InputError(text)
        if warns:
            get_root_logger().warning('%s', text)


def _head_at(cfg: Config, key: str) -> dict:
    return dict(heads_of(cfg.model))[key.removesuffix('.num_classes')]


def kind_of(options: Mapping[str, Any]) -> type | None:
    """Returns the class of a data set's config, which may be its type itself."""
    kind = options.get('type')
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def may_mean_more(cfg: Config, options: RunOptions) -> bool:
    """Returns whether a head may be meant to have more classes than the training data.

    It is where it starts from weights of more classes, and where a segmentor or a data set of a
    plugin may use them in its own way.
    """
    heads = [head for _, head in heads_of(cfg.model)]
    starts = cfg.get('load_from') or cfg.get('resume_from') or options.auto_resume or any(
        'Pretrained' in str(part.get('init_cfg')) for part in (cfg.model, *heads))
    kinds = [MODELS.get(cfg.model.get('type')), *(
        kind_of(one) for one in innermost_options(cfg.data.train))]
    return bool(starts) or not all(map(is_known, kinds))


def check_tested_head(cfg: Config, classes: Sequence[str]) -> None:
    """Checks that the head that predicts has the number of classes of the data that is tested.

    Heads and segmentors of plugins are left to the test.

    Raises:
        InputError: If it has not.
    """
    heads = cfg.model.get('decode_head')
    head = heads[-1] if isinstance(heads, (list, tuple)) else heads
    kinds = (HEADS.get((head or {}).get('type', '')), MODELS.get(cfg.model.get('type')))
    if not all(map(is_known, kinds)) or 'num_classes' not in head:
        return
    number = head['num_classes']
    if number == 1 and (head.get('out_channels') == 1 or classes_of(head) == 2):
        number = 2  # its threshold tells two classes apart
    if number != len(classes):
        raise InputError(f'the network of the config has {number} classes, its data set has '
                         f'{len(classes)}: set model.decode_head.num_classes or data.test to match')


def check_joined_classes(train: Dataset) -> list[str]:
    """Compares the classes of data sets that are trained on together.

    Returns:
        Warning for each that names others than the first.

    Raises:
        InputError: If a label of the one is for certain another class in the other.
    """
    first, *others = innermost_datasets(train)
    found = [compare_classes((_place(first), first.CLASSES), (_place(other), other.CLASSES))
             for other in others if hasattr(first, 'CLASSES') and hasattr(other, 'CLASSES')]
    return [f'{line}: both are trained as one class' for line in found if line is not None]


def _place(dataset: Dataset) -> str:
    return f'{type(dataset).__name__} of {getattr(dataset, "img_dir", None) or "data.train"}'


def check_scored_classes(train: Dataset, val: Dataset) -> str | None:
    """Compares the classes that are trained on with those that are scored during training.

    Returns:
        Warning if the names differ, or if the numbers or the order do and a data set of a plugin
        scores in its own way.

    Raises:
        InputError: If the numbers or the order differ, so that labels and predictions mean
            different things.
    """
    return compare_scored(train.CLASSES, val.CLASSES,
                          measure_alike(map(type, innermost_datasets(val))))


def measure_alike(kinds: Iterable[type | None]) -> bool:
    """Returns whether all data sets of these classes measure predictions as mmseg does."""
    return all(is_known(getattr(kind, name, None)) for kind in kinds
               for name in ('evaluate', 'pre_eval'))


def compare_scored(train: Sequence[str] | None, val: Sequence[str] | None,
                   alike: bool) -> str | None:
    """Compares the names of classes that are trained on with those that are scored.

    Args:
        train: Classes of the training data.
        val: Classes of the validation data.
        alike: Whether predictions are measured as mmseg does.

    Returns:
        See :func:`check_scored_classes`, as for what it raises.
    """
    try:
        line = compare_classes(('data.train', train), ('data.val', val))
    except ClassMismatch as error:
        if alike:
            raise ClassMismatch(error.difference,
                                f'{error.way_out}, or give --no-validate') from error
        return f'{error.difference}, which it scores in its own way'
    return line and f'{line}: both are scored as one class'


def check_ignored(cfg: Config, dataset: Dataset, split: str) -> str | None:
    """Compares the label that the heads ignore with the one that the metrics ignore.

    mmseg has a setting for each.

    Args:
        cfg: Config of the network.
        dataset: Data set that is scored.
        split: Its key in ``data``.

    Returns:
        Warning if they differ.
    """
    learnt = {head.get('ignore_index', IGNORE_INDEX) for _, head in heads_of(cfg.model)
              if not makes_labels(head)}
    scored = {inner.ignore_index for inner in innermost_datasets(dataset)
              if hasattr(inner, 'ignore_index')}
    if not scored - learnt:
        return None
    return (f'labels of {_text(scored)} are left out of the metrics (data.{split}.ignore_index), '
            f'and of {_text(learnt)} out of the loss (ignore_index of the heads): the latter count '
            'as errors where labels hold them; set both alike')


def check_label_numbers(train: Dataset, val: Dataset) -> str | None:
    """Compares whether 1 is subtracted from the labels in training and in validation.

    mmseg has a switch for each: of the step that loads labels, and of the data set.

    Returns:
        Warning if they differ, in which case a class of the one is another class of the other.
    """
    trained = {bool(step.reduce_zero_label) for inner in innermost_datasets(train)
               for step in getattr(getattr(inner, 'pipeline', None), 'transforms', ())
               if isinstance(step, LoadAnnotations)}
    scored = {bool(inner.reduce_zero_label) for inner in innermost_datasets(val)
              if hasattr(inner, 'reduce_zero_label')}
    if not trained or not scored or trained == scored:
        return None
    return (f'labels are trained on with reduce_zero_label={_text(trained)} (LoadAnnotations in '
            f'data.train.pipeline) and scored with reduce_zero_label={_text(scored)} (data.val): '
            'unless their files differ, a class of the one is another class of the other')


def _text(values: Iterable[object]) -> str:
    return ' and '.join(sorted(map(str, values)))


def check_loaded_classes(checkpoint: Checkpoint, dataset: Dataset, anew: Sequence[str] = ()
                         ) -> str | None:
    """Compares the classes of weights that a training starts from with those it has.

    Args:
        checkpoint: Checkpoint; one without names of classes, or with another number, is accepted.
        dataset: Training data.
        anew: Parts of the network that start anew.

    Returns:
        Warning if the heads start from weights of other classes.
    """
    if any(part.startswith('decode_head') for part in anew) or (
            len(checkpoint.meta.get('CLASSES') or ()) != len(dataset.CLASSES or ())):
        return None
    try:
        line = compare_classes(('the data', dataset.CLASSES),
                               (str(checkpoint.path), checkpoint.meta.get('CLASSES')))
    except ClassMismatch as error:
        line = error.difference
    return line and (f'{line}: the heads start from weights of other classes; with '
                     '--load-from-without decode_head.conv_seg (and auxiliary_head.conv_seg) their '
                     'classifiers start anew')


def check_trained_classes(checkpoint: Checkpoint, dataset: Dataset,
                          resumed: bool = False) -> None:
    """Refuses a checkpoint that was trained on other classes than those of the data set.

    Args:
        checkpoint: Checkpoint; one without names of classes is accepted.
        dataset: Data set to test on, or to go on training on.
        resumed: Whether training goes on.

    Raises:
        InputError: If the classes differ. The message has both numbers and, if these are equal,
            the first class that differs.
    """
    theirs, ours = plain_names(checkpoint.meta.get('CLASSES')), plain_names(dataset.CLASSES)
    if not theirs or not ours or theirs == ours:
        return
    line = (f'checkpoint {checkpoint.path} has {len(theirs)} classes, the data set '
            f'{type(dataset).__name__} has {len(ours)}')
    if len(theirs) == len(ours):
        number, their, our = first_difference(theirs, ours)
        line += f', but class {number} is {their!r} in the one and {our!r} in the other'
    way_out = ('restore the classes of data.train to resume, or start a new run from its weights '
               'with --load-from and another --work-dir' if resumed else
               'test it on the data set that it was trained on (data.test), or give a checkpoint '
               'with these classes')
    raise InputError(f'{line}: {way_out}')
