"""The top of the page: the metrics of one run or two, and what they were made with."""
import os.path as osp

import numpy as np

from ...evaluation.metric_names import means_of
from ...evaluation.results import Results
from ...units import format_bytes

_BINS = 20
_EXPLAINED = dict(
    mIoU='intersection over union, mean over classes', mAcc='recall, mean over classes',
    aAcc='share of pixels that are right', mDice='Dice score, mean over classes',
    mFscore='F1 score, mean over classes', mPrecision='precision, mean over classes',
    mRecall='recall, mean over classes', mBIoU='boundary IoU, mean over classes')


def metrics(*runs: Results) -> dict[str, tuple[str, list[float | None]]]:
    """Returns name -> (explanation, value in each run) of the metrics that all runs have."""
    values = [means_of(results.run['metric']) for results in runs]
    return {name: (_EXPLAINED.get(name, ''), [one[name] for one in values])
            for name in values[0] if all(name in one for one in values)}


def histogram(results: Results) -> dict[str, object] | None:
    """Counts the images by their scores: ``counts`` in bins of 0..1, and the ``median``."""
    scores = results.image_scores[np.isfinite(results.image_scores)]
    if not scores.size:
        return None
    return dict(counts=np.histogram(scores, _BINS, (0, 1))[0].tolist(),
                median=float(np.median(scores)))


def origin(results: Results) -> dict[str, str]:
    """Lists what a run was made with, as far as it is known."""
    run = results.run
    checkpoint, time, memory, machine = (run.get(key, {}) for key in (
        'checkpoint', 'time', 'peak_memory_bytes', 'hardware'))
    items = {
        'config': run['config'], 'checkpoint': checkpoint.get('path'),
        'SHA-256 of it': checkpoint.get('sha256'),
        'time per image': f'{time["seconds_per_image"]:.3g} s ({time["seconds"]:.4g} s in all)'
        if time else None,
        'peak memory': ', '.join(f'{format_bytes(value)} ({key})'
                                 for key, value in memory.items()),
        'hardware': ', '.join(str(machine[key]) for key in ('gpu', 'cpu') if machine.get(key)),
        'processes': f'{machine.get("processes", 1)} on {machine.get("device")}, '
                     f'{machine.get("cpus")} CPUs',
        'versions': ', '.join(f'{key} {value}' for key, value in run.get('versions', {}).items()),
        'images': run.get('image_folder'), 'skipped': ', '.join(run.get('skipped', [])),
        'file': osp.abspath(results.path)}
    return {key: value for key, value in items.items() if value}
