"""The files that a test run leaves, and reading them again.

    eval_single_scale_20261124_190000.json   figures, and where they come from
    eval_single_scale_20261124_190000.npz    what each image added to them (per_image.py)

The .json has mmseg's keys ``config`` and ``metric`` and, beside them, ``interval`` (of mIoU),
``images``, ``date``, ``checkpoint``, ``time``, ``peak_memory_bytes``, ``hardware``, ``versions``,
``settings`` (the whole config), ``classes``, ``palette``, ``image_folder`` and ``per_image`` (the
name of the .npz). A figure that does not exist, as of a class that no image shows, is null.
"""
import glob
import json
import math
import os
import os.path as osp
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from mmcv import Config
from torch.utils.data import Dataset

from ..checkpoint.metadata import plain
from ..errors import InputError
from ..files import atomic_path
from .per_image import PerImage
from .record import ImageRecord
from .run_info import describe_checkpoint, hardware, versions


@dataclass(frozen=True)
class Results:
    """A test run, read from its files.

    Attributes:
        path: Of the .json.
        run: Its content.
        images: What each image added.
    """
    path: str
    run: dict[str, Any]
    images: PerImage

    @property
    def classes(self) -> list[str]:
        """K names."""
        return self.run['classes']

    @property
    def palette(self) -> np.ndarray:
        """RGB (K, 3), 0..255."""
        return np.array(self.run['palette'])

    @cached_property
    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """Intersection and union, pixels (N, K)."""
        return self.images.areas(len(self.classes))


def write_results(path: str, figures: Mapping[str, dict], records: Sequence[tuple],
                  dataset: Dataset, cfg: Config, *, config: str, checkpoint: str, device: str,
                  seconds: float, memory: Mapping[str, int], **more: object) -> None:
    """Writes the files of a test run.

    Args:
        path: Of the .json.
        figures: From :func:`.figures.evaluate`.
        records: From :func:`.figures.pre_eval`, of all images.
        dataset: That they are of.
        cfg: The config of the run.
        config: Its file.
        checkpoint: As given to the run.
        device: 'cuda' or 'cpu'.
        seconds: That the predictions took, in all.
        memory: From :func:`.run_info.peak_memory`.
        more: Plain values to be written as well, such as what was skipped.

    Raises:
        SaveError: If a file could not be written; earlier files of that name are unchanged.
    """
    content = dict(
        config=config, **figures, **more, images=len(records),
        date=time.strftime('%Y-%m-%d %H:%M:%S'),
        checkpoint=describe_checkpoint(checkpoint) or dict(path=checkpoint),
        time=dict(seconds=round(seconds, 3),
                  seconds_per_image=round(seconds / max(1, len(records)), 4)),
        peak_memory_bytes=dict(memory), hardware=hardware(device), versions=versions(),
        classes=[name.strip() for name in dataset.CLASSES],
        palette=np.asarray(dataset.PALETTE).tolist(), settings=cfg._cfg_dict.to_dict())
    if records and all(isinstance(record, ImageRecord) for record in records):
        per_image = osp.splitext(path)[0] + '.npz'
        PerImage.of(records).save(per_image)
        content.update(per_image=osp.basename(per_image),
                       image_folder=osp.abspath(dataset.img_dir))
    with atomic_path(path) as part, open(part, 'w', encoding='utf-8') as file:
        json.dump(_finite(plain(content)), file, indent=2, allow_nan=False)
        file.write('\n')


def read_results(path: str) -> Results:
    """Reads a test run.

    Args:
        path: Its .json, or a work dir, of which the newest is taken.

    Raises:
        InputError: If it is not there, no such file, or its .npz is missing.
    """
    if osp.isdir(path):
        found = glob.glob(osp.join(path, 'eval_*.json'))
        if not found:
            raise InputError(f'{path} holds no results (eval_*.json): write them with '
                             f'`tools/test.py CONFIG CHECKPOINT --eval mIoU --work-dir {path}`')
        path = max(found, key=os.path.getmtime)
    try:
        with open(path, encoding='utf-8') as file:
            run = json.load(file)
    except FileNotFoundError as error:
        raise InputError(f'results {path} do not exist: write them with `tools/test.py CONFIG '
                         'CHECKPOINT --eval mIoU`') from error
    except ValueError as error:
        raise InputError(f'{path} is no JSON file ({error}): expected the eval_*.json of '
                         'tools/test.py') from error
    if not isinstance(run, dict) or not {'metric', 'per_image', 'classes'} <= run.keys():
        raise InputError(f'{path} holds no figures of single images: expected the eval_*.json '
                         'that tools/test.py of this project writes with --eval mIoU')
    return Results(path, run, PerImage.load(osp.join(osp.dirname(path), run['per_image'])))


def _finite(value: Any) -> Any:
    """Values that strict JSON has: null for nan and infinity, strings as keys, lists."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
