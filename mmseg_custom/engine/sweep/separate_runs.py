"""Trains the combinations of a sweep one after another, each as tools/train.py would train it.

What a sweep adds to the work dir of a run:

    last2_lr0.001/
      config.py             its config, resolved
      evaluations.json      iteration -> mIoU, mAcc, aAcc
      result.json           outcome, once the run is finished or has diverged
"""
import gc
import os
import os.path as osp
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from mmcv import Config
from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger

from ... import peak_memory
from ...errors import InputError
from ...files import atomic_write
from ...logs import saying
from ..divergence import Diverged
from ..lock import lock_work_dir
from ..overview import describe_run
from ..preemption import Preemption
from ..run import Run, prepare_run
from ..screen import kept_in
from ..train import train_with
from ..used_folder import HEAD_CONFIG, EarlierRun
from .finished import all_done, is_done
from .folder import SeparateRunsFolder
from .grid import Combination, combinations
from .partly_trained import log_passes
from .records import RESULT, SCORES, record_log, write_result
from .report import record_start, report


@dataclass(frozen=True)
class SeparateRuns:
    """The runs of a sweep that share no feature maps.

    Attributes:
        sweep: Run of the sweep.
        preemption: Stop signals of this process.
        before_training: Function that gets a prepared run, and returns the one that is trained.
        earlier: Runs in the same folders that these replace, or None.
    """
    sweep: Run
    preemption: Preemption
    before_training: Callable[[Run], Run]
    earlier: EarlierRun | None = None

    def train(self, one: Combination) -> None:
        """Trains a run until it is finished or diverges, and records how it ended.

        Raises:
            SystemExit: If a rank was signalled, once its checkpoint is written.
        """
        folder, timestamp = one.cfg.work_dir, time.strftime('%Y%m%d_%H%M%S', time.localtime())
        self._open_folder(folder)
        fault = None
        with kept_in(osp.join(folder, f'{timestamp}.log')):
            run = self._prepare(one, timestamp)
            try:
                train_with(self.before_training(run), self.preemption, self.earlier)
            except Diverged as error:
                get_root_logger().error('%s', error)
                fault = error.fault
        iterations, loss = record_log(folder)
        write_result(folder, state='finished' if fault is None else 'diverged', reason=fault,
                     iterations=iterations, loss=loss, run=dict(run.identity))
        if fault is not None:
            get_root_logger().error('%s is stopped, the sweep goes on: %s', one.name, fault)
        _release_memory()

    def _prepare(self, one: Combination, timestamp: str) -> Run:
        """Prepares a run, and keeps its config."""
        path = osp.join(one.cfg.work_dir, HEAD_CONFIG)
        # Named as what is kept of it; without a text, mmcv would read the file, which comes later.
        cfg = Config(one.cfg._cfg_dict, cfg_text=one.cfg.text or path, filename=path)
        options = replace(self.sweep.options, seed=self.sweep.seed, work_dir=one.cfg.work_dir)
        with saying('reading the data sets and the checkpoint'):
            run = replace(prepare_run(cfg, options, timestamp=timestamp),
                          sweep=self.sweep.work_dir)
        for line in describe_run(run):
            get_root_logger().info('%s', line)
        if get_dist_info()[0] == 0:
            atomic_write(path, run.dump())
        return run

    @staticmethod
    def _open_folder(folder: str) -> None:
        if get_dist_info()[0] == 0:
            os.makedirs(folder, exist_ok=True)
            lock_work_dir(folder)


def train_separately(run: Run, preemption: Preemption,
                     before_training: Callable[[Run], Run]) -> list[dict]:
    """Trains the combinations of a sweep of a partly trained backbone.

    Args:
        run: Run of the sweep.
        preemption: Stop signals of this process, which it listens to.
        before_training: See :class:`SeparateRuns`.

    Returns:
        Results, one dict per run: see :mod:`.report`.

    Raises:
        InputError: If something in a config is wrong, a checkpoint belongs to another run, or all
            runs have diverged.
        SystemExit: If a rank was signalled.
    """
    found = combinations(run.cfg)
    runs = {one.name: run.with_config(one.cfg) for one in found}
    resume, overwrites = run.options.auto_resume, run.options.overwrite
    left = [one for one in found if overwrites or not is_done(runs[one.name], resume)]
    if not left:
        get_root_logger().info('%s', all_done(run, f'{len(found)} run(s)'))
        return report(run.work_dir, run.seed, found, 'run')
    log_passes([one.cfg.model.backbone for one in left], bool(run.cfg.get('feature_cache')))
    folders = {name: one.work_dir for name, one in runs.items()}
    earlier = EarlierRun(list(folders.values()), (RESULT, SCORES)) if overwrites else None
    training = SeparateRuns(run, preemption, before_training, earlier)
    with SeparateRunsFolder(run, folders, lambda: preemption.signal) as folder:
        record_start(run.work_dir, run.seed, found)
        for number, one in enumerate(left, 1):
            preemption.exit_between_runs()
            get_root_logger().info('sweep: run %d of %d: %s, in %s', number, len(left), one.name,
                                   one.cfg.work_dir)
            training.train(one)
            folder.run_ended()
        results = report(run.work_dir, run.seed, found, 'run')
        if results and all(result['state'] == 'diverged' for result in results):
            raise InputError(f'all {len(results)} run(s) of the sweep diverged, '
                             f'{results[0]["name"]} because {results[0]["reason"]}: give --lr '
                             'smaller values')
    return results


def _release_memory() -> None:
    """Frees what the network and the runner of a run hold, which refer to each other."""
    gc.collect()
    torch.compiler.reset()  # else the graphs of several runs share the limit of one function
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    peak_memory.start_anew()
