"""Predictions -> records of images -> the figures of a test run.

mIoU, mAcc, aAcc, mDice, mFscore are mmseg's, by its functions; mBIoU, the mean Boundary IoU, and
the interval of mIoU are added to them. Letters: `N` images, `K` classes.
"""
from collections.abc import Sequence

import numpy as np
from mmcv.utils import print_log
from mmseg.datasets import CustomDataset
from prettytable import PrettyTable
from torch.utils.data import Dataset

from ..datasets.ground_truth import read_ground_truth
from ..errors import InputError
from .bootstrap import DRAWS, LEVEL, SEED, iou, miou_interval
from .per_image import PerImage
from .record import ImageRecord, measure

OF_MMSEG = ('mIoU', 'mDice', 'mFscore')
BOUNDARY = 'mBIoU'


def check_metrics(dataset: Dataset, metrics: Sequence[str]) -> None:
    """Refuses a figure that the data set cannot have, before a long run rather than after it.

    Raises:
        InputError: Naming it, and those that there are.
    """
    kind = type(dataset)
    if BOUNDARY in metrics and not _measures_as_mmseg(dataset):
        raise InputError(f'--eval {BOUNDARY}: {kind.__name__} measures predictions in its own way')
    unknown = [name for name in metrics if name not in (*OF_MMSEG, BOUNDARY)]
    if unknown and getattr(kind, 'evaluate', None) is CustomDataset.evaluate:
        raise InputError(f'--eval {unknown[0]}: expected some of '
                         f'{", ".join((*OF_MMSEG, BOUNDARY))}')


def pre_eval(dataset: Dataset, predictions: Sequence[np.ndarray], indices: Sequence[int],
             boundary: bool = False) -> list[tuple]:
    """Measures predictions as the data set's own ``pre_eval`` does, and more.

    Args:
        dataset: With labels.
        predictions: Classes (H, W) of some images.
        indices: Of the images in the data set.
        boundary: Also measure the boundary bands.

    Returns:
        One :class:`.record.ImageRecord` an image; what ``pre_eval`` returns for a data set with one
        of its own.

    Raises:
        InputError: If a prediction does not fit its label.
    """
    if not _measures_as_mmseg(dataset):
        return dataset.pre_eval(predictions, indices)
    return [measure(prediction, read_ground_truth(dataset, index), len(dataset.CLASSES),
                    dataset.img_infos[index]['filename'], dataset.ignore_index, boundary)
            for prediction, index in zip(predictions, indices)]


def evaluate(dataset: Dataset, records: list[tuple], metrics: Sequence[str],
             **options: object) -> dict[str, dict]:
    """Computes the figures, and prints mmseg's table of the classes and one of the means.

    Args:
        dataset: That they are of.
        records: From :func:`pre_eval`, of all images.
        metrics: Of mIoU, mDice, mFscore and mBIoU.
        options: Of the data set's ``evaluate``.

    Returns:
        ``metric``: name -> figure, 0..1, 'IoU.wall' for a class, as mmseg has it; and
        ``interval``: the 95 % interval of mIoU and how it was computed, where records have areas.
    """
    figures = dict(dataset.evaluate(
        records, metric=[name for name in metrics if name != BOUNDARY] or ['mIoU'], **options))
    if not all(isinstance(record, ImageRecord) for record in records):
        return dict(metric=figures)
    images, classes = PerImage.of(records), dataset.CLASSES
    if BOUNDARY in metrics:
        areas = images.boundary.sum(0)
        found = iou(areas[0], areas[1] + areas[2] - areas[0])
        figures[BOUNDARY] = round(float(np.nanmean(found)), 4)
        figures.update({f'BIoU.{name}': round(float(value), 4)
                        for name, value in zip(classes, found)})
    interval = miou_interval(*images.areas(len(classes)))
    print_log('\n' + _table(figures, interval, len(records)), options.get('logger'))
    if interval is None:
        return dict(metric=figures)
    return dict(metric=figures, interval=dict(
        figure='mIoU', level=LEVEL, low=round(interval[0], 4), high=round(interval[1], 4),
        method='bootstrap over images, percentiles', draws=DRAWS, seed=SEED))


def means_of(figures: dict[str, float]) -> dict[str, float]:
    """The figures that are not of one class."""
    return {name: value for name, value in figures.items() if '.' not in name}


def _measures_as_mmseg(dataset: Dataset) -> bool:
    return getattr(type(dataset), 'pre_eval', None) is CustomDataset.pre_eval


def _table(figures: dict[str, float], interval: tuple[float, float] | None, images: int) -> str:
    table = PrettyTable(['figure', 'percent', f'{LEVEL:.0%} interval over {images} images'])
    for name, value in means_of(figures).items():
        ends = '{:.2f} .. {:.2f}'.format(*(100 * end for end in interval)) if (
            name == 'mIoU' and interval) else ''
        table.add_row([name, f'{100 * value:.2f}', ends])
    return table.get_string()
