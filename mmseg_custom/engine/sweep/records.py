"""Records of a sweep, and of its heads or runs beside their checkpoints; written on rank 0."""
import json
import os
import os.path as osp

from mmcv.runner import get_dist_info

from ...checkpoint.metadata import plain
from ...evaluation.training_log import LOSS, TrainingLog, read_training_log
from ...files import atomic_write
from ...schema import integer, nullable, read_json, record, scalar, text

SWEEP = 'sweep.json'  # seed and results of the sweep, in its work dir
RESULT = 'result.json'  # state ('finished' or 'diverged'), iterations, reason, loss, run
SCORES = 'evaluations.json'  # iteration -> mIoU, mAcc, aAcc
METRICS = ('mIoU', 'mAcc', 'aAcc')
_RESULT = record({}, dict(state=text, iterations=nullable(integer(0)), reason=nullable(text),
                          loss=scalar))
_SCORES = record({}, others=record({}, others=scalar))
_SWEEP = record({}, dict(seed=nullable(integer(0))))


def read_result(folder: str) -> dict | None:
    """Returns the outcome of a head; None while it is being trained."""
    return read_json(osp.join(folder, RESULT), _RESULT)


def write_result(folder: str, **result: object) -> None:
    """Records the outcome of a head."""
    if get_dist_info()[0] == 0:
        write_json(osp.join(folder, RESULT), result)


def remove_records(folder: str) -> None:
    """Removes the records of an earlier sweep in a head's folder."""
    for name in (RESULT, SCORES):
        path = osp.join(folder, name)
        if get_dist_info()[0] == 0 and osp.exists(path):
            os.remove(path)


def record_scores(folder: str, iteration: int, metrics: dict) -> None:
    """Adds the metrics of an evaluation to those of earlier ones."""
    scores = read_scores(folder)
    scores[iteration] = plain({key: metrics[key] for key in METRICS if key in metrics})
    write_json(osp.join(folder, SCORES), scores)


def record_log(folder: str) -> tuple[int, float | None]:
    """Records what the log of a run holds of its evaluations; on rank 0.

    Returns:
        Number of its iterations, and its last loss, as far as they were logged.
    """
    if get_dist_info()[0] > 0:
        return 0, None
    log = read_training_log(folder)
    scores: dict[int, dict[str, float]] = {}
    for name in (name for name in METRICS if name in log.metrics):
        curve = log.metrics[name]
        for iteration, value in zip(curve.iterations.tolist(), curve.values.tolist()):
            scores.setdefault(iteration, {})[name] = value
    write_json(osp.join(folder, SCORES), plain(scores))
    return int(max(log.iterations, default=0)), last_loss(log)


def last_loss(log: TrainingLog) -> float | None:
    """Returns the last loss of a log; None if there is none."""
    losses = log.losses.get(LOSS)
    return None if losses is None else float(losses[-1])


def read_scores(folder: str) -> dict[int, dict[str, float]]:
    """Returns iteration -> the metrics of its evaluation."""
    scores = read_json(osp.join(folder, SCORES), _SCORES) or {}
    return {int(key): value for key, value in scores.items() if key.isdecimal()}


def seed_of_sweep(work_dir: str) -> int | None:
    """Returns the seed of the sweep in a work dir; None where there is none."""
    return (read_json(osp.join(work_dir, SWEEP), _SWEEP) or {}).get('seed')


def write_json(path: str, content: dict) -> None:
    """Writes a JSON file, whole or not at all."""
    atomic_write(path, json.dumps(content, indent=1))
