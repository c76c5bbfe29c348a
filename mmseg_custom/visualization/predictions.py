"""Images of a data set beside their labels and their predictions, for pictures.

Predictions are read as MMSegmentation writes them for ADE20K's server (`format_results`): one PNG
an image, named like it, in which the value k stands for class k of 1..K. In memory classes are
0..K-1 and 255 is not labelled.
"""
import os.path as osp
from collections.abc import Callable

import numpy as np
from mmseg.datasets import CustomDataset
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from ..datasets.concatenated import ConcatTestDataset
from ..datasets.ground_truth import IGNORE_INDEX, read_ground_truth
from ..errors import InputError
from .files import read_image


def choose_rows(dataset: Dataset, count: int,
                leave_out: Callable[[InputError], object] | None = None) -> list[int]:
    """Chooses images for a picture, always the same ones.

    The data set is cut into `count` stretches; each gives the image that shows the most classes
    that no image before it showed, and of those the one with the most classes.

    Args:
        dataset: Data set with labels.
        count: Number of images, 1 or more; a smaller data set gives fewer.
        leave_out: Function that is called with the error of a label that cannot be read, whose
            image is left out; default: it is raised.

    Returns:
        Indices into the data set, ascending.

    Raises:
        InputError: If `count` is below 1, or a label cannot be read.
    """
    if count < 1:
        raise InputError(f'--rows {count}: expected 1 or more')
    chosen: list[int] = []
    shown: set[int] = set()
    for stretch in np.array_split(np.arange(len(dataset)), min(count, len(dataset))):
        found = {}
        for i in map(int, stretch):
            try:
                part, place, _ = part_of(dataset, i)
                found[i] = set(np.unique(read_ground_truth(part, place))) - {IGNORE_INDEX}
            except InputError as error:
                if leave_out is None:
                    raise
                leave_out(error)
        if not found:
            continue
        best = max(found, key=lambda i: (len(found[i] - shown), len(found[i]), -i))
        chosen.append(best)
        shown |= found[best]
    return chosen


def read_row(dataset: Dataset, index: int,
             folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads an image, its ground truth and its prediction.

    Args:
        dataset: Data set with labels.
        index: Index of the image in the data set.
        folder: Folder of the predictions; of several data sets, they are in `0`, `1`, ... in it.

    Returns:
        Image RGB uint8 (H, W, 3), ground truth (H, W) and prediction (H, W).

    Raises:
        InputError: If a file is missing, cannot be decoded, or does not fit the image.
    """
    dataset, index, subfolder = part_of(dataset, index)
    folder = osp.join(folder, subfolder)
    name = dataset.img_infos[index]['filename']
    image = read_image(osp.join(dataset.img_dir, name))
    ground_truth = read_ground_truth(dataset, index)
    prediction = _read_prediction(osp.join(folder, osp.splitext(osp.basename(name))[0] + '.png'),
                                  len(dataset.CLASSES))
    for what, labels in (('label', ground_truth), ('prediction', prediction)):
        if labels.shape != image.shape[:2]:
            raise InputError(f'{what} of {name} is {labels.shape} pixels, the image '
                             f'{image.shape[:2]}: they belong to different data')
    return image, ground_truth, prediction


def part_of(dataset: Dataset, index: int) -> tuple[CustomDataset, int, str]:
    """Returns the data set of an image, its index in that, and the folder of its predictions."""
    if not isinstance(dataset, ConcatTestDataset):
        return dataset, index, ''
    number, place = dataset.get_dataset_idx_and_sample_idx(index)
    return dataset.datasets[number], place, str(number)


def read_classes(dataset: CustomDataset, index: int) -> np.ndarray:
    """Reads the ground truth (H, W) of an image, in which all that is no class is 255.

    Raises:
        InputError: If it cannot be read.
    """
    labels = read_ground_truth(dataset, index)
    ignored = (labels == dataset.ignore_index) | (labels >= len(dataset.CLASSES))
    return np.where(ignored, IGNORE_INDEX, labels)


def palette_of(dataset: Dataset) -> np.ndarray:
    """Returns the colours of a data set's classes, RGB (K, 3); those of mmseg where it has none."""
    count, palette = len(dataset.CLASSES), dataset.PALETTE
    if palette is None or len(palette) < count:
        palette = np.random.RandomState(42).randint(0, 255, (count, 3))
    return np.asarray(palette)


def _read_prediction(path: str, count: int) -> np.ndarray:
    """Reads a prediction (H, W), 0..count-1."""
    if not osp.isfile(path):
        raise InputError(f'prediction {path} does not exist: write it with `tools/test.py CONFIG '
                         'CHECKPOINT --format-only --eval-options imgfile_prefix=FOLDER`')
    try:
        values = np.asarray(Image.open(path))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f'prediction {path} cannot be decoded: write it again') from error
    if values.ndim != 2 or values.min() < 1 or values.max() > count:
        raise InputError(f'prediction {path} holds {values.min()}..{values.max()} in '
                         f'{values.ndim} dimensions: expected labels 1..{count}, as --format-only '
                         'writes them')
    return values.astype(np.int64) - 1
