"""Whether the labels of a data set hold something to learn: looked at before a run starts.

One label is enough to see that, as a rule. Labels that are all ignored give a loss of 0 and no
error; so do binary masks of 0 and 255, in which the foreground is ignored.

H W pixels.
"""
import os.path as osp
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from mmseg.datasets import CustomDataset
from mmseg.datasets.pipelines import LoadAnnotations
from torch.utils.data import Dataset

from ..errors import InputError
from .ground_truth import IGNORE_INDEX, read_ground_truth
from .nesting import innermost_datasets
from .transforms import may_change_labels

MOST = 1000  # labels that are read at most
SECONDS = 10.  # of reading at most; what was not read in that time is not refused


def check_learnable(dataset: Dataset) -> list[str]:
    """Reads labels of a training data set, as its pipeline loads them, until one shows a class.

    Data sets in others are looked at one by one; not those whose labels another step loads, or may
    change.

    Returns:
        Warnings, for the log.

    Raises:
        InputError: If all pixels are ignored, or all but those of the first of several classes.
    """
    found = (_check(inner) for inner in innermost_datasets(dataset))
    return [warning for warning in found if warning is not None]


def check_scored(dataset: Dataset) -> list[str]:
    """Reads labels that are scored, as the metrics load them, until one shows a class.

    Returns:
        Warnings, for the log: metrics that will be NaN or say little, or a label with a fault.
    """
    warnings = []
    for inner in innermost_datasets(dataset):
        if not isinstance(inner, CustomDataset) or not inner.ann_dir:
            continue
        try:
            line, _ = _look(inner, partial(read_ground_truth, inner), False)
        except InputError as error:
            if osp.isdir(inner.ann_dir):  # otherwise there are no labels to score
                warnings.append(f'evaluation will end with: {error}')
        except Exception:  # raised by a plugin's data set
            continue
        else:
            warnings += [] if line is None else [f'{line} (evaluation)']
    return warnings


def _check(dataset: Dataset) -> str | None:
    load = _loading_step(dataset)
    if load is None:
        return None

    def loaded(index: int) -> np.ndarray:
        results = dict(img_info=dataset.img_infos[index], ann_info=dataset.get_ann_info(index))
        dataset.pre_pipeline(results)
        return load(results)['gt_semantic_seg']

    try:
        as_stored = dataset.label_map is None and not load.reduce_zero_label
        line, is_certain = _look(dataset, loaded, as_stored)
    except Exception:  # of a file or a plugin's step: training will report it
        return None
    if is_certain:
        raise InputError(f'{line}; tools/doctor.py checks all labels')
    return line


def _look(dataset: CustomDataset, load: Callable[[int], np.ndarray],
          as_stored: bool) -> tuple[str | None, bool]:
    """Reads labels in random order until one shows a class that is not the first.

    Args:
        dataset: Data set that holds no other.
        load: Function that loads the label map (H, W) of an image: classes, and 255.
        as_stored: Whether 255 is what the file holds.

    Returns:
        What is wrong with the labels, None for nothing; and whether that is certain.
    """
    ignored, count = {IGNORE_INDEX, dataset.ignore_index}, len(dataset.img_infos)
    seen, read, end = np.zeros(256, dtype=bool), 0, time.monotonic() + SECONDS
    for index in random.Random(0).sample(range(count), min(count, MOST)):
        labels = load(index)
        if labels.ndim != 2:
            return None, False  # A picture in colours has a fault, which its sample will tell.
        seen[:] |= np.bincount(labels.ravel(), minlength=256)[:256] > 0
        read += 1
        if any(number > 0 and number not in ignored for number in np.flatnonzero(seen)):
            return None, False
        if time.monotonic() > end:
            break
    found = _describe(dataset.CLASSES or (), bool(seen[0]) and 0 not in ignored,
                      as_stored and bool(seen[IGNORE_INDEX]))
    if found is None:
        return None, False
    line, is_certain = found
    return (f'{read} label(s) of {count} in {dataset.ann_dir} {line}',
            is_certain and read == min(MOST, count))


def _describe(classes: Sequence[str], first: bool, stored_255: bool) -> tuple[str, bool] | None:
    """Describes labels in which no class but the first was found.

    Args:
        classes: Names of the classes.
        first: Whether a pixel belongs to the first class.
        stored_255: Whether the files hold 255.

    Returns:
        Predicate of the labels, and whether it is wrong for certain; None if it is right.
    """
    if not first:
        return ('have no pixel of a class: 255 is ignored, and so is 0 with reduce_zero_label; in '
                'a binary mask, write numbers of classes, or correct reduce_zero_label or classes',
                True)
    if len(classes) < 2:
        return None
    line = f'show no class but the first, {str(classes[0]).strip()!r}'
    if stored_255:
        return (f'{line}, and pixels that are ignored (255): in a binary mask of 0 and 255, write '
                '1 in the place of 255', True)
    return f'{line}: there is nothing to tell apart; are these the right labels?', False


def _loading_step(dataset: Dataset) -> LoadAnnotations | None:
    """Returns the step of the pipeline that loads labels, if what it loads is what is learnt."""
    if not isinstance(dataset, CustomDataset):
        return None
    steps = list(getattr(getattr(dataset, 'pipeline', None), 'transforms', ()))
    for i, step in enumerate(steps):
        if isinstance(step, LoadAnnotations):
            return None if may_change_labels(steps[i + 1:]) else step
    return None
