"""Builds the data sets of a config. The config stays as it is; mmseg's builder changes some."""
import copy
from typing import Any

from mmseg.datasets import build_dataset
from torch.utils.data import Dataset

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
        options: A config of a data set, or a list of them, which are concatenated.
    """
    options = copy.deepcopy(options)
    for one in options if isinstance(options, (list, tuple)) else [options]:
        one.pop('test_mode', None)  # as in mmseg's tools, whatever it was in the config
    return build_dataset(options, dict(test_mode=True))


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
