"""The tracked runs of a work dir, in ``tracking.json``: where a resumed run goes on.

    {"wandb": "4f1c09ab", "mlflow": "df09f0d1ddc74ee6a9673514ac2fa283"}

TensorBoard has no runs but folders, and needs no entry.
"""
import json
import os.path as osp

from ...files import atomic_write
from ...schema import read_json, record, text

NAME = 'tracking.json'
_RECORD = record({}, dict(wandb=text, mlflow=text))


def read_run(folder: str, tracker: str) -> str | None:
    """Returns the run of a tracker in which the training of a work dir is logged.

    Args:
        folder: Work dir.
        tracker: 'wandb' or 'mlflow'.

    Returns:
        Its id; None if there is none, or the record is damaged.
    """
    return (read_json(osp.join(folder, NAME), _RECORD) or {}).get(tracker)


def write_run(folder: str, tracker: str, run: str) -> None:
    """Records the run of a tracker; those of others are kept.

    Raises:
        SaveError: If it could not be written; the previous record is kept.
    """
    path = osp.join(folder, NAME)
    content = {**(read_json(path, _RECORD) or {}), tracker: run}
    atomic_write(path, json.dumps(content) + '\n')
