"""Which classes the images of a few-shot list show.

N images, K classes.
"""
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prettytable import PrettyTable
from torch.utils.data import Dataset

from ...errors import InputError, some_of
from ..build import build_train_dataset
from ..ground_truth import read_ground_truth
from ..nesting import innermost_options
from ..workers import in_processes
from .choose import FewShotList, choose, read_options

COLUMNS = ('list', 'seed', 'images', 'classes shown', 'rarest class shown', 'not shown', 'SHA-256')
_dataset: Any = None  # the data set that a worker process reads


@dataclass(frozen=True)
class Coverage:
    """Classes that the images of a list show.

    Attributes:
        name: Name of the list: '1/16'.
        chosen: The list.
        classes: K class names.
        images: Number of images that show each class, (K,).
        pixels: Number of pixels of each class, (K,).
        unread: Reason why the label of an image cannot be read, by its name; it counts nowhere.
    """
    name: str
    chosen: FewShotList
    classes: Sequence[str]
    images: np.ndarray
    pixels: np.ndarray
    unread: dict[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """Returns the names of the classes that no image shows."""
        return [self.classes[i].strip() for i in np.flatnonzero(self.images == 0).tolist()]

    def rarest(self) -> str:
        """Returns the class that the fewest images show, and their number."""
        shown = np.flatnonzero(self.images)
        if not len(shown):
            return 'none'
        i = int(shown[np.argmin(self.images[shown])])
        return f'{self.classes[i].strip()} ({self.images[i]})'


def report(train: dict, fractions: Sequence[str], seeds: Sequence[int],
           workers: int = 1) -> list[Coverage]:
    """Reads the labels of all images once, and counts the classes of each list.

    Args:
        train: ``data.train`` of a config; few-shot options in it are ignored.
        fractions: Fractions of the data ('1/16'); '1' for all images.
        seeds: Seeds of the lists.
        workers: Number of processes that read labels.

    Raises:
        InputError: For a fraction outside (0, 1].
    """
    found_options = innermost_options(train)
    if len(found_options) > 1:
        raise InputError(f'data.train concatenates {len(found_options)} data sets: expected one')
    [options] = found_options
    dataset = build_train_dataset({**{key: value for key, value in options.items()
                                      if key not in ('max_image_num', 'few_shot')}, 'pipeline': []})
    stems = [info['filename'].rpartition('.')[0] for info in dataset.img_infos]
    lists = []
    for fraction, seed in itertools.product(fractions, seeds):
        wanted = read_options(None, dict(fraction=fraction, seed=seed), len(stems))
        if wanted is not None:
            lists.append((fraction, choose(stems, *wanted)))
    pixels, unread = _count(dataset, workers)  # (N, K)
    rows = {stem: i for i, stem in enumerate(stems)}
    found = []
    for fraction, chosen in lists:
        counts = pixels[[rows[name] for name in chosen.names]]
        found.append(Coverage(fraction, chosen, dataset.CLASSES, (counts > 0).sum(0),
                              counts.sum(0), {name: unread[rows[name]] for name in chosen.names
                                              if rows[name] in unread}))
    return found


def _count(dataset: Dataset, workers: int) -> tuple[np.ndarray, dict[int, str]]:
    """Counts the pixels of each class in each image, (N, K); says which cannot be read, and why."""
    counts = list(in_processes(_count_one, range(len(dataset)), workers, 'labels', _set_dataset,
                               (dataset,)))
    unread = {i: one for i, one in enumerate(counts) if isinstance(one, str)}
    nothing = np.zeros(len(dataset.CLASSES), np.int64)
    return np.stack([nothing if i in unread else one for i, one in enumerate(counts)]), unread


def _set_dataset(dataset: Dataset) -> None:
    global _dataset
    _dataset = dataset


def _count_one(index: int) -> np.ndarray | str:
    try:
        labels = read_ground_truth(_dataset, index)
    except InputError as error:
        return str(error)
    return np.bincount(labels.ravel(), minlength=256)[:len(_dataset.CLASSES)]


def table(found: Sequence[Coverage], each_class: bool = False) -> str:
    """Formats a line for each list and, with ``each_class``, one for each class."""
    lists = PrettyTable(COLUMNS)
    lists.align = 'l'
    for one in found:
        chosen, missing = one.chosen, one.missing()
        names = some_of(missing)
        lists.add_row([one.name, chosen.seed, len(chosen.names),
                       f'{len(one.classes) - len(missing)} of {len(one.classes)}', one.rarest(),
                       names or '-', chosen.sha256[:16]])
    if not each_class:
        return str(lists)
    heads = [f'{one.name} s{one.chosen.seed}' for one in found]
    classes = PrettyTable(['images that show', *heads])
    classes.align = 'l'
    for i, name in enumerate(found[0].classes):
        classes.add_row([name.strip(), *(int(one.images[i]) for one in found)])
    return f'{lists}\n{classes}'
