"""Work dirs that hold an earlier run, and runs that are finished already.

A training starts in a folder without checkpoints. In one that has some it must be told what is to
become of them: ``--auto-resume``, ``--resume-from`` one of them, or ``--overwrite``.
"""
import os
import os.path as osp
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from mmcv import Config
from mmcv.runner import BaseRunner, Hook, get_dist_info
from mmseg.utils import get_root_logger

from ..checkpoint.work_dir import (
    LATEST,
    best_checkpoints_in,
    checkpoints_in,
    remove_checkpoint,
)
from ..errors import InputError
from ..files import PART
from ..models.backbone_options import backbone_option
from . import best
from .last_save import spare_name
from .options import RunOptions
from .run import Run

HEAD_CONFIG = 'config.py'  # in the folder of a sweep's head


def check_work_dir(cfg: Config, options: RunOptions) -> None:
    """Checks that a training does not begin beside the checkpoints of an earlier one.

    Nothing is changed. Logs, results of tests and records alone do not count, so that a run that
    has failed before its first checkpoint is started again as it was.

    Args:
        cfg: Resolved config.
        options: Options of the command line.

    Raises:
        InputError: If it does, or if ``--overwrite`` would remove a file that the run reads.
    """
    held = [path for folder in _folders(cfg) for path in _checkpoints(folder)]
    if options.overwrite:
        _refuse_removal_of_inputs(cfg, held)
    elif held and not (options.auto_resume or _belongs_to(cfg.get('resume_from'), cfg.work_dir)):
        newest = max(held, key=_rank)
        one = '' if cfg.get('sweep') else ', --resume-from FILE with one of them'
        raise InputError(
            f'work dir {cfg.work_dir} holds {len(held)} checkpoint(s) of an earlier run (newest: '
            f'{osp.relpath(newest, cfg.work_dir)}): --auto-resume goes on with it'
            f'{one}; --overwrite removes them once the new run has made an iteration; else choose '
            'an empty folder by --work-dir')


class EarlierRun:
    """What an earlier run has left in a work dir.

    What is removed gets the names of half-written files first, which no run is resumed from; those
    are swept if the process is killed meanwhile.

    Args:
        folders: Work dir, or those of the heads of a sweep, as they are before the run.
        records: Names of further files that go with the checkpoints.
    """

    def __init__(self, folders: Sequence[str], records: Sequence[str] = ()):
        self._checkpoints = [path for folder in folders for path in _checkpoints(folder)]
        self._records = [osp.join(folder, name) for folder in folders
                         for name in (LATEST, best.NAME, *records)]

    def remove(self) -> None:
        """Removes the files, once; on rank 0."""
        if get_dist_info()[0] > 0:
            return
        for path in self._records:
            with suppress(FileNotFoundError):
                os.remove(path)
        half = []
        for path in self._checkpoints:
            with suppress(FileNotFoundError):
                os.rename(path, path + PART)
                half.append(path + PART)
        for path in half:
            remove_checkpoint(path)
        if half:
            get_root_logger().info('--overwrite: removed %d checkpoint(s) of the earlier run',
                                   len(half))
        self._checkpoints, self._records = [], []


class OverwriteHook(Hook):
    """Removes an earlier run when the new one has made an iteration.

    By then the new run has passed its checks, its weights are loaded, and its first batch has gone
    through the network and back.

    Args:
        earlier: The earlier run; several runners may share it.
    """

    def __init__(self, earlier: EarlierRun):
        self._earlier = earlier

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Removes the files."""
        self._earlier.remove()


def finished(run: Run) -> str | None:
    """Returns the line for a resumed run that has nothing left to do; None for any other."""
    last = run.cfg.runner.get('max_iters')
    if not run.resumed or run.checkpoint is None or not isinstance(last, int):
        return None
    done = run.checkpoint.meta['iter']
    if done < last or _evaluation_is_due(run, done):
        return None
    return finished_line(run.work_dir, run.checkpoint.path, done,
                         'epoch_length' in run.cfg.runner)


def finished_line(work_dir: str, path: str, done: int, epochs: bool = False) -> str:
    """Says that a run is finished, since when, and how it is trained on or anew.

    Args:
        work_dir: Its work dir.
        path: Its last checkpoint.
        done: Number of its iterations.
        epochs: Whether its length may be given in epochs.
    """
    when = time.strftime('%Y-%m-%d %H:%M', time.localtime(osp.getmtime(path)))
    return (f'{work_dir} is finished: iteration {done} was saved on {when}; --cfg-options '
            f'runner.max_iters=N {"(or max_epochs=N, where the config has it) " if epochs else ""}'
            'trains on up to N, --overwrite in the place of --auto-resume '
            'starts anew')


def _evaluation_is_due(run: Run, done: int) -> bool:
    """Whether the evaluation of the last iteration may be missing, as after a kill within it."""
    options = run.cfg.get('evaluation') or {}
    assert run.checkpoint is not None
    if 'val' not in run.data or best.read(osp.dirname(run.checkpoint.path), done) is not None:
        return False
    others = options.get('start') is not None or options.get('dynamic_intervals') is not None
    return others or done % options.get('interval', 1) == 0


def _folders(cfg: Config) -> Iterator[str]:
    """Yields the work dir, and those of the heads of a sweep in it."""
    yield cfg.work_dir
    if cfg.get('sweep'):
        yield from (entry.path for entry in os.scandir(cfg.work_dir)
                    if osp.exists(osp.join(entry.path, HEAD_CONFIG)))


def _checkpoints(folder: str) -> list[str]:
    """Lists checkpoints of a run, whole or not, the best ones among them."""
    found = checkpoints_in(folder) + checkpoints_in(folder, 'epoch') + best_checkpoints_in(folder)
    return [path for _, path in found]


def _rank(path: str) -> tuple[bool, int]:
    """Orders checkpoints by their iteration, after the best ones."""
    name = osp.basename(path)
    return not name.startswith('best_'), int(re.findall(r'\d+', name)[-1])


def _belongs_to(checkpoint: str | None, work_dir: str) -> bool:
    """Whether a checkpoint is one of the work dir, or of its folder in a spare one."""
    if not checkpoint:
        return False
    folder = osp.dirname(osp.abspath(checkpoint))
    return (osp.realpath(folder) == osp.realpath(work_dir)
            or osp.basename(folder) == spare_name(work_dir))


def _refuse_removal_of_inputs(cfg: Config, held: Sequence[str]) -> None:
    read = dict(resume_from=cfg.get('resume_from'), load_from=cfg.get('load_from'),
                pretrained=backbone_option(cfg.model.get('backbone') or {}, 'pretrained'))
    removed = {osp.realpath(path) for path in held}
    for key, path in read.items():
        if isinstance(path, str) and osp.realpath(path) in removed:
            raise InputError(f'--overwrite would remove {path}, which {key} names: move it to '
                             'another folder, or choose another --work-dir')
