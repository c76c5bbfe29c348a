"""Compares the classes of a network, a data set and a checkpoint."""
from collections.abc import Sequence

from mmcv import Config
from mmseg.datasets.pipelines import LoadAnnotations
from mmseg.utils import get_root_logger
from torch.utils.data import Dataset

from ..checkpoint.checkpoint import Checkpoint
from ..datasets.nesting import innermost_datasets
from ..errors import InputError


def differing_heads(cfg: Config, classes: Sequence[str]) -> list[tuple[str, int]]:
    """Returns (key, value) of each ``num_classes`` that differs from the number of classes."""
    found = []
    for key in ('decode_head', 'auxiliary_head'):
        heads = cfg.model.get(key) or []
        for head in heads if isinstance(heads, list) else [heads]:
            number = head.get('num_classes', len(classes))
            if number != len(classes):
                found.append((f'model.{key}.num_classes', number))
    return found


def check_heads(cfg: Config, classes: Sequence[str]) -> None:
    """Checks that the heads have the number of classes of the training data.

    More classes than that give a warning.

    Raises:
        InputError: If a head has fewer classes; labels would be out of range for the loss.
    """
    for key, number in differing_heads(cfg, classes):
        text = (f'{key} is {number}, and the training data has {len(classes)} classes '
                f'({", ".join(name.strip() for name in classes[:3])} ...): set it to '
                f'{len(classes)}')
        if number < len(classes):
            raise InputError(text)
        get_root_logger().warning('%s', text)


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


def _text(flags: set[bool]) -> str:
    return ' and '.join(map(str, sorted(flags)))


def check_trained_classes(checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Refuses a checkpoint that was trained on other classes than those of the data set.

    Args:
        checkpoint: Checkpoint to test; one without names of classes is accepted.
        dataset: Data set to test on.

    Raises:
        InputError: If the classes differ. The message has both numbers and, if these are equal,
            the first class that differs.
    """
    theirs, ours = ([str(name).strip().lower() for name in names or ()]
                    for names in (checkpoint.meta.get('CLASSES'), dataset.CLASSES))
    if not theirs or not ours or theirs == ours:
        return
    line = (f'checkpoint {checkpoint.path} has {len(theirs)} classes, the data set '
            f'{type(dataset).__name__} has {len(ours)}')
    if len(theirs) == len(ours):
        number, (their, our) = next((i, pair) for i, pair in enumerate(zip(theirs, ours))
                                    if pair[0] != pair[1])
        line += f', but class {number} is {their!r} in the one and {our!r} in the other'
    raise InputError(f'{line}: test it on the data set that it was trained on (data.test), or give '
                     'a checkpoint with these classes')
