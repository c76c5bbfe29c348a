"""Builds the data sets of a config. The config stays as it is; mmseg's builder changes some."""
import copy
from typing import Any

from mmseg.datasets import build_dataset
from mmseg.utils import get_root_logger
from torch.utils.data import Dataset

from ..errors import InputError
from .concatenated import ConcatTestDataset
from .nesting import innermost_options


def build_train_dataset(options: Any) -> Dataset:
    """Builds ``data.train``, with its labels and the augmentations of its pipeline.

    Args:
        options: A config of a data set, or a list of them, which are concatenated.
    """
    return build_dataset(copy.deepcopy(options))


def build_test_dataset(options: Any) -> Dataset:
    """Builds ``data.val`` or ``data.test``: labels may be missing, and are read by the metrics.

    Args:
        options: A config of a data set, or a list of them, which are tested together.

    Raises:
        InputError: If it mixes images, or its data sets have different numbers of classes.
    """
    datasets = []
    for one in _tested(options):
        one = copy.deepcopy(one)
        one.pop('test_mode', None)  # as in mmseg's tools, whatever it was in the config
        datasets.append(build_dataset(one, dict(test_mode=True)))
    return datasets[0] if len(datasets) == 1 else ConcatTestDataset(datasets)


def _tested(options: Any) -> list[dict]:
    """Lists the configs of the data sets whose images are tested, each image once."""
    if isinstance(options, (list, tuple)):
        return [one for part in options for one in _tested(part)]
    kind = options.get('type')
    if kind == 'MultiImageMixDataset':
        raise InputError(f'{kind} in data.val or data.test makes images that have no label file: '
                         'give the data set that it mixes')
    if kind == 'RepeatDataset':
        get_root_logger().warning('%s in data.val or data.test: each image is tested once', kind)
        return _tested(options['dataset'])
    return [options] if 'dataset' in options else innermost_options(options)


def build_validation_dataset(options: Any, train: Any) -> Dataset:
    """Builds ``data.val`` with the pipeline of ``data.train``, for losses, as mmseg does.

    Args:
        options: A config of a data set, or a list of them, which are concatenated.
        train: That of the training data.
    """
    pipeline = innermost_options(train)[0].get('pipeline')
    return build_train_dataset(_with_pipeline(copy.deepcopy(options), pipeline))


def _with_pipeline(options: Any, pipeline: list | None) -> Any:
    if isinstance(options, (list, tuple)):
        return [_with_pipeline(part, pipeline) for part in options]
    options.pop('test_mode', None)
    if 'dataset' in options:
        options['dataset'] = _with_pipeline(options['dataset'], pipeline)
    else:
        options['pipeline'] = copy.deepcopy(pipeline)
    return options
