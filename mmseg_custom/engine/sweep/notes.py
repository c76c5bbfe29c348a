"""What is noted in a head's folder beside its checkpoints and logs; written on rank 0."""
import json
import os
import os.path as osp

from mmcv.runner import get_dist_info

from ...checkpoint.metadata import plain
from ...files import atomic_path
from .grid import Combination

RESULT = 'result.json'  # state ('finished' or 'diverged'), iterations, reason, loss, run
SCORES = 'evaluations.json'  # iteration -> mIoU, mAcc, aAcc
FIGURES = ('mIoU', 'mAcc', 'aAcc')


def read_result(combination: Combination) -> dict | None:
    """What became of a head; None while it is trained."""
    return _read(osp.join(combination.cfg.work_dir, RESULT))


def write_result(combination: Combination, **result: object) -> None:
    """Notes what became of a head; on rank 0."""
    if get_dist_info()[0] == 0:
        _write(osp.join(combination.cfg.work_dir, RESULT), result)


def forget(combination: Combination) -> None:
    """Removes the notes of an earlier sweep; on rank 0."""
    for name in (RESULT, SCORES):
        path = osp.join(combination.cfg.work_dir, name)
        if get_dist_info()[0] == 0 and osp.exists(path):
            os.remove(path)


def note_scores(folder: str, iteration: int, figures: dict) -> None:
    """Adds the figures of an evaluation."""
    scores = read_scores(folder)
    scores[iteration] = plain({key: figures[key] for key in FIGURES if key in figures})
    _write(osp.join(folder, SCORES), scores)


def read_scores(folder: str) -> dict[int, dict[str, float]]:
    """Iteration -> the figures of its evaluation."""
    return {int(key): value for key, value in (_read(osp.join(folder, SCORES)) or {}).items()}


def _read(path: str) -> dict | None:
    try:
        with open(path) as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


def _write(path: str, content: dict) -> None:
    with atomic_path(path) as part, open(part, 'w') as file:
        json.dump(content, file, indent=1)
