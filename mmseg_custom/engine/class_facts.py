"""What a config and a checkpoint say of the classes: names, colours, and numbers in label files.

K classes.
"""
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv import Config
from mmseg.datasets import DATASETS

from ..datasets.class_names import class_names
from ..datasets.nesting import innermost_options
from ..errors import InputError


def configured_classes(test: Mapping, head: Mapping) -> tuple[list[str], list | None]:
    """Returns names and colours of the classes of ``data.test``, without reading its files.

    Args:
        test: Config of the innermost data set.
        head: Config of the decode head, whose number of classes is taken where no names are known.

    Raises:
        InputError: If the type of the data set is not registered.
    """
    kind = DATASETS.get(test.get('type'))
    if kind is None:
        raise InputError(f'data.test.type={test.get("type")!r} of the config is not a registered '
                         'data set')
    classes, palette = test.get('classes'), test.get('palette') or getattr(kind, 'PALETTE', None)
    if isinstance(classes, (str, list, tuple)):
        classes = class_names(classes, kind.CLASSES, kind.__name__)
    if classes is not None and kind.CLASSES is not None and palette is kind.PALETTE:
        of_name = dict(zip(kind.CLASSES, palette or []))
        palette = [of_name[name] for name in classes if name in of_name]
    classes = classes or kind.CLASSES or [f'class {k}' for k in range(head['num_classes'])]
    return list(classes), palette


def recorded_classes(meta: Mapping[str, Any], classes: list[str],
                     palette: list | None) -> tuple[list[str], np.ndarray]:
    """Returns names and colours (K, 3) as a checkpoint records them, else those of its config.

    Args:
        meta: Metadata of the checkpoint.
        classes: Names by the config.
        palette: Colours by the config; random ones, always the same, where there are none.
    """
    names = [name.strip() for name in meta.get('CLASSES', classes)]
    palette = meta.get('PALETTE', palette)
    known = palette is not None and len(palette) == len(names)
    return names, np.asarray(palette) if known else np.random.default_rng(42).integers(
        0, 256, (len(names), 3))


def first_label(cfg: Config) -> int:
    """Returns the number of the first class in label files: 1 where 0 is no class, else 0.

    ``reduce_zero_label`` of the training pipeline says so.
    """
    train = innermost_options(cfg.data.get('train') or {})[0]
    return int(any(step.get('reduce_zero_label') for step in train.get('pipeline', [])))
