"""Predictions -> records of images -> the metrics of a test run.

mIoU, mAcc, aAcc, mDice and mFscore are computed by mmseg's functions; mBIoU, the mean Boundary IoU,
and the interval of mIoU are added. Letters: `H W` pixels, `K` classes.
"""
import inspect
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.utils import print_log
from torch.utils.data import Dataset

from ..datasets.concatenated import ConcatTestDataset
from ..datasets.ground_truth import read_ground_truth
from .bootstrap import DRAWS, LEVEL, SEED, mean_over_classes, miou_interval
from .metric_names import BOUNDARY, measures_as_mmseg
from .per_image import PerImage
from .record import ImageRecord, are_image_records, measure


def boundary_metrics(dataset: Dataset, images: PerImage) -> dict[str, float]:
    """Computes mBIoU and the BIoU of each class.

    Raises:
        ValueError: If the records have no boundary bands.
    """
    found = images.boundary_iou()
    if found is None:
        raise ValueError(f'{BOUNDARY}: expected records of pre_eval(..., boundary=True)')
    return {BOUNDARY: round(float(mean_over_classes(found)), 4),
            **{f'BIoU.{name}': round(float(value), 4)
               for name, value in zip(dataset.CLASSES, found)}}


def pre_eval(dataset: Dataset, predictions: Sequence[np.ndarray], indices: Sequence[int],
             boundary: bool = False) -> list[tuple]:
    """Measures predictions as the data set's own ``pre_eval`` does, and more.

    Args:
        dataset: Data set with labels.
        predictions: Classes (H, W) of some images.
        indices: Indices of these images in the data set.
        boundary: Whether to measure the boundary bands too.

    Returns:
        One :class:`.record.ImageRecord` per image, or the results of the data set's own
        ``pre_eval`` if it overrides mmseg's.

    Raises:
        InputError: If a prediction does not fit its ground truth.
    """
    if isinstance(dataset, ConcatTestDataset):
        return [_measure_part(dataset, *pair, boundary) for pair in zip(predictions, indices)]
    if not measures_as_mmseg(type(dataset)):
        return dataset.pre_eval(predictions, indices)
    return [measure(prediction, read_ground_truth(dataset, index), len(dataset.CLASSES),
                    dataset.img_infos[index]['filename'], dataset.ignore_index, boundary)
            for prediction, index in zip(predictions, indices)]


def _measure_part(dataset: ConcatTestDataset, prediction: np.ndarray, index: int,
                  boundary: bool) -> tuple:
    """Measures an image of one of several data sets, and names it with its folder."""
    number, place = dataset.get_dataset_idx_and_sample_idx(index)
    record, = pre_eval(dataset.datasets[number], [prediction], [place], boundary)
    if isinstance(record, ImageRecord):
        record.name = dataset.names[index]
    return record


def evaluate(dataset: Dataset, records: Sequence[tuple], metrics: Sequence[str],
             indices: Sequence[int] | None = None, **options: Any) -> dict:
    """Computes the metrics; mmseg logs its tables of the classes and of the means.

    Args:
        dataset: Data set of the records.
        records: Results of :func:`pre_eval`.
        metrics: Names among mIoU, mDice, mFscore and mBIoU.
        indices: Indices of the images of the records, ascending; default: all.
        options: Keyword arguments of the data set's ``evaluate``.

    Returns:
        ``metric``: name -> value, 0..1, 'IoU.wall' for a class, as mmseg names it; and
        ``interval``: the 95 % interval of mIoU and its method, if the records have areas. Of
        several data sets, ``metric`` holds '0_mIoU' of the first, '1_mIoU' of the second ... and,
        where their results can be added up, 'mIoU' of all; and ``data_sets`` a dict of each:
        ``image_folder``, ``images`` and, if there is one, ``interval``.

    Raises:
        ValueError: If mBIoU is asked for and the records have no boundary bands.
    """
    if isinstance(dataset, ConcatTestDataset):
        return _evaluate_parts(dataset, records, metrics, indices, **options)
    if not _takes_logger(dataset):
        options = {name: value for name, value in options.items() if name != 'logger'}
    values = as_floats(dataset.evaluate(
        records, metric=[name for name in metrics if name != BOUNDARY] or ['mIoU'], **options))
    if not are_image_records(records):
        return dict(metric=values)
    images, classes = PerImage.of(records), dataset.CLASSES
    if BOUNDARY in metrics:
        values.update(boundary_metrics(dataset, images))
    interval = miou_interval(*images.areas(len(classes)))
    if interval is None:
        return dict(metric=values)
    return dict(metric=values, interval=dict(
        figure='mIoU', level=LEVEL, low=round(interval[0], 4), high=round(interval[1], 4),
        method='bootstrap over images, percentiles', draws=DRAWS, seed=SEED))


def _evaluate_parts(dataset: ConcatTestDataset, records: Sequence[tuple], metrics: Sequence[str],
                    indices: Sequence[int] | None, **options: Any) -> dict:
    """Computes the metrics of each of several data sets, and of all together: see `evaluate`."""
    metric: dict[str, float] = {}
    data_sets = []
    for number, (part, own) in enumerate(zip(dataset.datasets, dataset.split(records, indices))):
        folder = dataset.folder(number)
        print_log(f'\n{folder}: {len(own)} images', options.get('logger'))
        found = evaluate(part, own, metrics, **options) if own else {}
        metric.update({f'{number}_{name}': value
                       for name, value in found.pop('metric', {}).items()})
        data_sets.append(dict(image_folder=osp.abspath(folder), images=len(own), **found))
    if not are_image_records(records):
        return dict(metric=metric, data_sets=data_sets)
    print_log(f'\nall together: {len(records)} images', options.get('logger'))
    found = evaluate(dataset.datasets[0], records, metrics, **options)
    return {**found, 'metric': {**found['metric'], **metric}, 'data_sets': data_sets}



def _takes_logger(dataset: Dataset) -> bool:
    """Returns whether the evaluation of a data set, which may be a plugin's, takes a logger."""
    parameters = inspect.signature(dataset.evaluate).parameters.values()
    return any(each.name == 'logger' or each.kind is each.VAR_KEYWORD for each in parameters)


def as_floats(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Converts numpy's numbers of 32 bits to the shortest floats: 0.4061, not 0.406100004911."""
    return {name: float(str(value)) if isinstance(value, np.float32) else value
            for name, value in metrics.items()}
