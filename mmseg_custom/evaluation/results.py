"""Writes and reads the files of a test run.

    eval_single_scale_20261124_190000.json   metrics, and the run that they come from
    eval_single_scale_20261124_190000.npz    contribution of each image (per_image.py)

The .json has mmseg's keys ``config`` and ``metric`` and, beside them, ``interval`` (of mIoU),
``images``, ``date``, ``checkpoint``, ``time``, ``peak_memory_bytes``, ``hardware``, ``versions``,
``settings`` (the whole config), ``frozen_dtype`` (if it is set), ``classes``, ``palette``,
``image_folder`` and ``per_image`` (the name of the .npz). A metric without a value, such as that of
an absent class, is null.
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
from ..files import atomic_write
from ..missing import look_around
from ..schema import (
    array,
    integer,
    load_json,
    nullable,
    number,
    path_text,
    record,
    scalar,
    shorten,
    text,
    validate,
)
from .confusion import image_scores
from .per_image import PerImage
from .record import are_image_records
from .run_info import describe_checkpoint, hardware, versions

_WRITTEN = 'the eval_*.json of tools/test.py'
_VALUE = nullable(number())
_INTERVAL = nullable(record(dict(low=_VALUE, high=_VALUE)))
_RUN = record(
    dict(config=path_text, metric=record(dict(mIoU=_VALUE), others=_VALUE), images=integer(1),
         date=text, per_image=path_text, image_folder=path_text,
         classes=array(text, 'the names of the classes', 1, 65_534),
         palette=array(array(number(0, 255), 'red, green and blue', 3, 3), 'colours', 1)),
    dict(interval=_INTERVAL, frozen_dtype=text, skipped=array(path_text, 'names of images'),
         data_sets=array(record(dict(image_folder=path_text, images=integer(0)),
                                dict(interval=_INTERVAL)), 'the data sets'),
         checkpoint=record({}, dict.fromkeys(('path', 'file', 'sha256'), text)),
         time=record(dict(seconds=number(0), seconds_per_image=number(0))),
         peak_memory_bytes=record({}, others=number(0)), versions=record({}, others=scalar),
         hardware=record({}, dict.fromkeys(('device', 'processes', 'cpu', 'cpus', 'gpu'), scalar))))
# What is said of figures of a backbone whose weights were rounded to 8 bits.
UNPUBLISHED = 'not the conditions of published figures'


@dataclass(frozen=True)
class Results:
    """A test run, read from its files.

    Attributes:
        path: Path of the .json.
        run: Content of the .json.
        images: Contribution of each image.
    """
    path: str
    run: dict[str, Any]
    images: PerImage

    @property
    def name(self) -> str:
        """Name of the config file, without its ending."""
        return osp.splitext(osp.basename(self.run['config']))[0]

    @property
    def classes(self) -> list[str]:
        """Names of the K classes."""
        return self.run['classes']

    @property
    def palette(self) -> np.ndarray:
        """Colours of the classes, RGB (K, 3), 0..255."""
        return np.array(self.run['palette'])

    @cached_property
    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, K) of intersection and union."""
        return self.images.areas(len(self.classes))

    @cached_property
    def ground_truth_areas(self) -> np.ndarray:
        """Labelled pixels of each class (N, K)."""
        return self.images.ground_truth_areas(len(self.classes))

    @cached_property
    def image_scores(self) -> np.ndarray:
        """Mean IoU of each image over the classes of its ground truth (N,)."""
        return image_scores(*self.areas, self.ground_truth_areas)


def write_results(path: str, evaluation: Mapping[str, dict], records: Sequence[tuple],
                  dataset: Dataset, cfg: Config, *, config: str, checkpoint: str, device: str,
                  seconds: float, memory: Mapping[str, int], **more: object) -> None:
    """Writes the files of a test run.

    Args:
        path: Path of the .json.
        evaluation: Result of :func:`.metrics.evaluate`.
        records: Results of :func:`.metrics.pre_eval` for all images.
        dataset: Data set of the records.
        cfg: Config of the run.
        config: Path of the config file.
        checkpoint: Path of the checkpoint, or 'none'.
        device: 'cuda' or 'cpu'.
        seconds: Total time of the predictions.
        memory: Result of :func:`.run_info.peak_memory`.
        more: Further plain values to write, such as the skipped images.

    Raises:
        SaveError: If a file could not be written; earlier files of that name are unchanged.
    """
    content = dict(
        config=config, **evaluation, **more, images=len(records),
        date=time.strftime('%Y-%m-%d %H:%M:%S'),
        checkpoint=describe_checkpoint(checkpoint) or dict(path=checkpoint),
        time=dict(seconds=round(seconds, 3),
                  seconds_per_image=round(seconds / max(1, len(records)), 4)),
        peak_memory_bytes=dict(memory), hardware=hardware(device), versions=versions(),
        classes=[name.strip() for name in dataset.CLASSES],
        palette=np.asarray(dataset.PALETTE).tolist(), settings=cfg._cfg_dict.to_dict())
    if records and are_image_records(records):
        per_image = osp.splitext(path)[0] + '.npz'
        PerImage.of(records).save(per_image)
        content.update(per_image=osp.basename(per_image),
                       image_folder=osp.abspath(dataset.img_dir))
    text = json.dumps(_finite(plain(content)), indent=2, allow_nan=False)
    atomic_write(path, f'{text}\n'.encode())


def read_results(path: str) -> Results:
    """Reads the files of a test run.

    Args:
        path: Path of the .json, or a work dir, whose newest results are read.

    Raises:
        InputError: If a file is missing or of another kind.
    """
    if osp.isdir(path):
        found = glob.glob(osp.join(path, 'eval_*.json'))
        if not found:
            raise InputError(f'{path} holds no results (eval_*.json): write them with '
                             f'`tools/test.py CONFIG CHECKPOINT --eval mIoU --work-dir {path}`')
        path = max(found, key=os.path.getmtime)
    if not osp.exists(path):
        raise InputError(f'results {path} do not exist' + look_around(
            path, 'write them with `tools/test.py CONFIG CHECKPOINT --eval mIoU`'))
    run = load_json(path, _WRITTEN)
    if isinstance(run, dict) and isinstance(run.get('metric'), dict) and not (
            {'per_image', 'classes'} <= run.keys() and 'mIoU' in run['metric']):
        raise InputError(f'{path} holds no mIoU or no metrics of single images: expected the '
                         'eval_*.json that tools/test.py of this project writes with --eval mIoU')
    validate(run, _RUN, path, f'expected {_WRITTEN}')
    if osp.basename(run['per_image']) != run['per_image']:
        raise InputError(f'{path}: per_image: {shorten(run["per_image"])}, expected the name of a '
                         'file beside it')
    beside = osp.join(osp.dirname(path), run['per_image'])
    images = PerImage.load(beside)
    images.check(beside, len(run['classes']))
    if len(run['palette']) < len(run['classes']) or run['images'] != len(images.ends):
        raise InputError(
            f'{path} has {len(run["classes"])} classes and {len(run["palette"])} colours, and is '
            f'of {run["images"]} images, {run["per_image"]} of {len(images.ends)}: expected the '
            'same numbers; run tools/test.py again')
    return Results(path, run, images)


def _finite(value: Any) -> Any:
    """Converts to values of strict JSON: null for nan and infinity, strings as keys, lists."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
