"""The identity of a run: a run can only be resumed from a checkpoint with the same identity.

Its parts are written into every checkpoint (``meta['run']``) and compared when a run is resumed.
What does not change the result of a step is not part of it: intervals, logs, folders, the length of
the run, test settings, the number of ranks (if a step has the same number of images).
"""
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mmcv import Config
from torch.utils.data import Dataset

from ..datasets.nesting import few_shot_lists, image_names, named_pipelines, renumbered_labels
from ..errors import InputError

STEP_IMAGES = 'images a step'
SECTIONS = ('model', 'optimizer', 'optimizer_config', 'lr_config', 'precision',
            'head_precision', 'feature_cache')
# The checkpoint records the source of the weights; nothing reads pretrain_size; 'dir' is the folder
# of a feature cache; the others only change speed, testing or the initial weights.
HARMLESS = {'pretrained', 'pretrain_size', 'test_cfg', 'with_cp', 'use_flash_attn', 'init_cfg',
            'dir'}
FEW_SHOT = 'few-shot list'
# Recorded but not compared: where it differs, the list of images differs too.
RECORDED = {FEW_SHOT}


def identity(cfg: Config, dataset: Dataset, step_images: int, seed: int,
             diff_seed: bool = False) -> dict[str, str]:
    """Returns the identity of a run, name -> part: 'model.backbone.depth' -> '48'.

    Args:
        cfg: Resolved config of the run.
        dataset: Training data.
        step_images: Number of images in an optimizer step, over all ranks.
        seed: Seed that the ranks share.
        diff_seed: Whether each rank adds its number to the seed.
    """
    parts: dict[str, str] = {}
    for section in SECTIONS:
        _flatten(section, cfg.get(section), parts)
    for name, pipeline in named_pipelines(cfg.data.train):
        parts[f'data.train.{name}'] = _text(pipeline)
    names = image_names(dataset)
    digest = hashlib.sha256('\n'.join(names).encode()).hexdigest()
    parts['list of images'] = f'{len(names)} images, SHA-256 {digest[:16]}'
    lists = few_shot_lists(dataset)
    if lists:
        parts[FEW_SHOT] = '; '.join(map(str, lists))
    renumbered = renumbered_labels(dataset)
    if renumbered is not None:
        parts['selected classes'] = renumbered
    parts[STEP_IMAGES] = str(step_images)
    parts['seed'] = str(seed) + (' + rank' if diff_seed else '')
    return parts


def refuse_another(before: Mapping[str, str] | None, now: Mapping[str, str],
                   checkpoint: str) -> None:
    """Refuses to resume a run from a checkpoint of another run.

    Args:
        before: Identity in the checkpoint; None if another program wrote it, which is accepted.
        now: Identity of this run.
        checkpoint: Path of the checkpoint, for the message.

    Raises:
        InputError: If a part differs; the message has the first such part and both values.
    """
    if before is None:
        return
    different = [key for key in (*now, *before) if now.get(key) != before.get(key)
                 and key not in RECORDED and key.rpartition('.')[2] not in HARMLESS]
    if different:
        key = different[0]
        others = len(set(different)) - 1
        more = f' ({others} more differ)' if others else ''
        restore = (f'give --total-batch {before[key]}' if key == STEP_IMAGES and key in before
                   else 'restore the setting')
        raise InputError(
            f'{checkpoint} belongs to another run: {key} was {before.get(key, "not set")} and is '
            f'{now.get(key, "not set")} here{more}; {restore} to resume, or start a new '
            'run from its weights with --load-from and another --work-dir')


def _flatten(name: str, value: Any, parts: dict[str, str]) -> None:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            if key not in HARMLESS:
                _flatten(f'{name}.{key}', value[key], parts)
    elif value is not None:  # None means the same as a missing key.
        parts[name] = _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
