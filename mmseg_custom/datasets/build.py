"""Builds the data sets of a config. The config stays as it is; mmseg's builder changes some."""
import copy
from typing import Any

from mmseg.datasets import build_dataset
from torch.utils.data import Dataset


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
