"""The record of the best score beside the checkpoints: ``best.json`` in the work dir.

The checkpoint of an iteration is written before the evaluation of that iteration, so that a long
evaluation puts no training at risk. The result of the evaluation is therefore not in it. It is
recorded here, for a run that is resumed from that checkpoint:

    {"iter": 2000, "hook_msgs": {"best_score": 0.5312, "best_ckpt": ".../best_mIoU_iter_2000.pth"}}
"""
import json
import os
import os.path as osp

from ..checkpoint.metadata import plain
from ..files import atomic_write
from ..schema import integer, nullable, read_json, record, scalar, text

NAME = 'best.json'
_RECORD = record(dict(iter=integer(0), hook_msgs=record({}, dict(
    best_score=scalar, best_ckpt=nullable(text)))))


def write(folder: str, iteration: int, hook_msgs: dict) -> None:
    """Records the best score after the evaluation of an iteration.

    Raises:
        SaveError: If it could not be written; the previous record is kept.
    """
    content = {'iter': iteration, 'hook_msgs': plain(hook_msgs)}
    atomic_write(osp.join(folder, NAME), json.dumps(content))


def read(folder: str, iteration: int) -> dict | None:
    """Returns the record of the evaluation of an iteration; None if there is none."""
    found = read_json(osp.join(folder, NAME), _RECORD)
    # Without it, the run repeats the evaluation.
    return found['hook_msgs'] if found and found['iter'] == iteration else None


def remove(folder: str) -> None:
    """Removes the record of an earlier run when a new run starts in its folder."""
    path = osp.join(folder, NAME)
    if osp.exists(path):
        os.remove(path)
