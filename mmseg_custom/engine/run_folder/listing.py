"""What the files of a work dir are."""
import os
import os.path as osp
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...checkpoint.work_dir import LATEST, best_checkpoints_in, checkpoints_in
from ...evaluation.training_log import SUFFIX
from ...units import format_bytes
from ..best import NAME as BEST_RECORD
from ..lock import LOCK
from .figures import CSV
from .record import NAME as RECORD

README, CURVES = 'README.md', 'curves.png'
_KNOWN = [  # name -> what it is, in the order of the list
    (re.compile(re.escape(README)), 'this page'),
    (re.compile(re.escape(CURVES)), 'loss, learning rate and metrics over the iterations'),
    (re.compile(re.escape(CSV)), 'IoU and accuracy (0..1) of each class, in the last and in the '
                                 'best evaluation'),
    (re.compile(r'sweep\.json'), 'results of all heads'),
    (re.compile(r'sweep\.png'), 'mIoU over each setting that varies'),
    (re.compile(rf'\d.*{re.escape(SUFFIX)}'), 'log for programs: a JSON object a line'),
    (re.compile(r'\d.*\.log'), 'log for people: environment, config, losses, metrics'),
    (re.compile(r'tf_logs'), 'events for TensorBoard (tensorboard --logdir FOLDER)'),
    (re.compile(r'wandb|mlruns'), 'log of W&B or MLflow'),
    (re.compile(r'tracking\.json'), 'the runs of W&B and MLflow that a resumed run goes on in'),
    (re.compile(r'eval_.*\.json'), 'results of tools/test.py'),
    (re.compile(r'eval_.*\.npz'), 'results of tools/test.py for each image'),
    (re.compile(r'eval_.*\.html'), 'page of tools/report.py'),
    (re.compile(r'labelled'), 'images that tools/image_demo.py labelled'),
    (re.compile(r'weights\.safetensors'), 'weights that tools/merge_checkpoint.py exported'),
    (re.compile(re.escape(RECORD)), 'the starts of the run, for programs'),
    (re.compile(re.escape(BEST_RECORD)), 'the best score so far, for a run that is resumed'),
    (re.compile(re.escape(LOCK)), 'keeps a second run out of the folder while one is at work')]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a work dir, by their names.

    Attributes:
        newest: Path of that of the highest iteration; None without any.
        best: Path of that of the best score.
        older: Paths of the others, ascending.
    """
    newest: str | None
    best: str | None
    older: Sequence[str]

    @property
    def chosen(self) -> str | None:
        """The best one, else the newest."""
        return self.best or self.newest

    @classmethod
    def of(cls, folder: str) -> 'Checkpoints':
        """Looks for them in a folder."""
        kept = [path for _, path in checkpoints_in(folder) or checkpoints_in(folder, 'epoch')]
        best = best_checkpoints_in(folder)
        return cls(kept[-1] if kept else None, best[-1][1] if best else None, kept[:-1])


def list_files(folder: str, config: str) -> list[tuple[str, str, str]]:
    """Lists what is in a work dir, as far as it is known.

    Args:
        folder: The work dir.
        config: Name of the config in it.

    Returns:
        (name, size in words, what it is) of each.
    """
    found = Checkpoints.of(folder)
    rows = []
    for path, what in ((found.best, 'checkpoint of the best evaluation'),
                       (found.newest, 'newest checkpoint: resumes from it')):
        if path is not None:
            rows.append((osp.basename(path), _size([path]), what))
    if found.older:
        first, last = (osp.basename(found.older[i]) for i in (0, -1))
        more = '' if first == last else f' .. {last}'
        rows.append((first + more, _size(found.older), f'{len(found.older)} older checkpoint(s)'))
    names = _names(folder)
    if LATEST in names:
        target = osp.basename(osp.realpath(osp.join(folder, LATEST)))
        rows.append((LATEST, '', f'link to {target}'))
    if config in names:
        rows.append((config, _size([osp.join(folder, config)]),
                     'the whole config, as it was resolved'))
    for pattern, what in _KNOWN:
        for name in (name for name in names if pattern.fullmatch(name)):
            size = '' if name == README else _size([osp.join(folder, name)])
            rows.append((name, size, what))
    return rows


def _names(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if osp.isdir(folder) else []


def _size(paths: Sequence[str]) -> str:
    total = 0
    for path in paths:
        inner = [osp.join(path, name) for name in _names(path)] if osp.isdir(path) else [path]
        total += sum(osp.getsize(one) for one in inner if osp.isfile(one))
    return format_bytes(total, decimal=True)
