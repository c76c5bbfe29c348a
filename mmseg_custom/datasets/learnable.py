"""Whether the labels of a data set hold something to learn: looked at before a run starts.

One label is enough to see that, as a rule. Labels that are all ignored give a loss of 0 and no
error; so do binary masks of 0 and 255, in which the foreground is ignored.

H W pixels.
"""
import random
import time
from collections.abc import Iterator, Sequence

import numpy as np
from mmseg.datasets import CustomDataset
from mmseg.datasets.pipelines import LoadAnnotations
from torch.utils.data import Dataset

from ..errors import InputError
from .ground_truth import IGNORE_INDEX
from .nesting import innermost_datasets

MOST = 1000  # labels that are read where one after the other shows nothing
SECONDS = 10.  # of reading, after which a doubt is a warning


def check_learnable(dataset: Dataset) -> list[str]:
    """Reads labels of a training data set, as its pipeline loads them, until one shows a class.

    Data sets in others are looked at one by one; those whose labels another step loads are not.

    Returns:
        Warnings, for the log.

    Raises:
        InputError: If all pixels are ignored, or all but those of the first of several classes.
    """
    found = (_check(inner) for inner in innermost_datasets(dataset))
    return [warning for warning in found if warning is not None]


def _check(dataset: Dataset) -> str | None:
    load = _loading_step(dataset)
    if load is None:
        return None
    ignored = {IGNORE_INDEX, dataset.ignore_index}
    seen, read, end = np.zeros(256, dtype=bool), 0, time.monotonic() + SECONDS
    for labels in _labels(dataset, load):
        seen |= np.bincount(labels.ravel(), minlength=256) > 0
        read += 1
        if any(number > 0 and number not in ignored for number in np.flatnonzero(seen)):
            return None
        if time.monotonic() > end:
            break
    if read == 0:
        return None
    as_stored = dataset.label_map is None and not load.reduce_zero_label
    found = _describe(dataset.CLASSES or (), seen[0] and 0 not in ignored,
                      as_stored and seen[IGNORE_INDEX])
    if found is None:
        return None
    line, is_certain = found
    line = f'{read} label(s) of {len(dataset.img_infos)} in {dataset.ann_dir} {line}'
    if is_certain and read == min(MOST, len(dataset.img_infos)):
        raise InputError(f'{line}; tools/doctor.py checks all labels')
    return line


def _describe(classes: Sequence[str], first: bool, stored_255: bool) -> tuple[str, bool] | None:
    """Says what labels show that have no class but the first, if that.

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


def _labels(dataset: CustomDataset, load: LoadAnnotations) -> Iterator[np.ndarray]:
    """Loads label maps (H, W) in random order.

    Stops at one that cannot be loaded: in training, the error says why.
    """
    count = len(dataset.img_infos)
    for index in random.Random(0).sample(range(count), min(count, MOST)):
        try:
            results = dict(img_info=dataset.img_infos[index], ann_info=dataset.get_ann_info(index))
            dataset.pre_pipeline(results)
            labels = load(results)['gt_semantic_seg']
        except Exception:  # whatever a file or a step of somebody else raises
            return
        if labels.ndim != 2 or labels.dtype != np.uint8:
            return
        yield labels


def _loading_step(dataset: Dataset) -> LoadAnnotations | None:
    """Returns the step of the pipeline that loads labels, if mmseg knows it as one."""
    steps = dataset.pipeline.transforms if isinstance(dataset, CustomDataset) else ()
    return next((step for step in steps if isinstance(step, LoadAnnotations)), None)
