"""Whether the labels of a data set hold something to learn: looked at before a run starts.

One label is enough to see that, as a rule. Labels that are all ignored give a loss of 0 and no
error; so do binary masks of 0 and 255, in which the foreground is ignored.

H W pixels.
"""
import random
import time
from collections.abc import Iterator

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


def _check(dataset: CustomDataset) -> str | None:
    if not isinstance(dataset, CustomDataset):
        return None
    classes, ignored = dataset.CLASSES or (), {IGNORE_INDEX, dataset.ignore_index}
    seen, read, end = np.zeros(256, dtype=bool), 0, time.monotonic() + SECONDS
    for labels in _labels(dataset):
        seen[np.unique(labels)] = True
        read += 1
        if any(number > 0 and number not in ignored for number in np.flatnonzero(seen)):
            return None
        if time.monotonic() > end:
            break
    if read == 0 or seen[0] and 0 not in ignored and len(classes) < 2:
        return None
    load = _loading_step(dataset)
    as_stored = dataset.label_map is None and not getattr(load, 'reduce_zero_label', True)
    where = f'{read} label(s) of {len(dataset.img_infos)} in {dataset.ann_dir}'
    if seen[0] and 0 not in ignored:
        line = f'{where} show no class but the first, {str(classes[0]).strip()!r}'
        if not as_stored or not seen[IGNORE_INDEX]:
            return f'{line}: there is nothing to tell apart; are these the right labels?'
        line += (', and pixels that are ignored (255): in a binary mask of 0 and 255, write 1 in '
                 'the place of 255')
    else:
        line = (f'{where} have no pixel of a class: 255 is ignored, and so is 0 with '
                'reduce_zero_label; in a binary mask, write numbers of classes, or correct '
                'reduce_zero_label or classes')
    if read < min(MOST, len(dataset.img_infos)):
        return line
    raise InputError(f'{line}; tools/doctor.py checks all labels')


def _labels(dataset: CustomDataset) -> Iterator[np.ndarray]:
    """Loads label maps (H, W) in random order, as the first step that loads labels does.

    Stops at one that cannot be loaded: in training, the error says why.
    """
    load = _loading_step(dataset)
    count = len(dataset.img_infos)
    for index in random.Random(0).sample(range(count), min(count, MOST)) if load else ():
        try:
            results = dict(img_info=dataset.img_infos[index], ann_info=dataset.get_ann_info(index))
            dataset.pre_pipeline(results)
            labels = load(results)['gt_semantic_seg']
        except Exception:  # whatever a file or a step of somebody else raises
            return
        if labels.ndim != 2 or labels.dtype != np.uint8:
            return
        yield labels


def _loading_step(dataset: CustomDataset) -> LoadAnnotations | None:
    return next((step for step in dataset.pipeline.transforms if isinstance(step, LoadAnnotations)),
                None)
