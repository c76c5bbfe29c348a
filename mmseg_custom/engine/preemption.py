"""Stops a run cleanly on SIGTERM and SIGUSR1.

All ranks or only one may be signalled, at any moment. At the end of the iteration the ranks agree
to stop, the checkpoint is written, and all of them exit with code 75, which tells the launcher
(dist_train.sh, slurm_train.sh) that the run can be resumed with ``--auto-resume``.
"""
import atexit
import logging
import multiprocessing
import signal
from types import FrameType

import torch
import torch.distributed as dist
from mmcv.runner import BaseRunner, Hook
from mmcv.runner.hooks import LoggerHook

from ..distributed.collectives import cpu_group
from ..distributed.parallelize import is_sharded
from ..files import SaveError, make_folder
from .divergence import check_finite, has_diverged
from .last_save import LastSave

PREEMPTED = 75  # exit code; EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """Stop signals of this process, and the exit that all ranks take together.

    Attributes:
        signal: Signal that this process has received, or None.
    """

    def __init__(self):
        self.signal: int | None = None
        self._group: dist.ProcessGroup | None = None

    def listen(self) -> None:
        """Installs the signal handlers; called in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def requested(self) -> bool:
        """Returns whether this process was asked to stop."""
        return self.signal is not None

    def join(self) -> None:
        """Creates the group in which ranks agree, on the CPU, so that no GPU waits for it."""
        if _grouped():
            self._group = cpu_group()

    def agree(self, alarm: bool = False) -> tuple[int | None, bool]:
        """Exchanges in one go all that ranks have to agree on in an iteration.

        Args:
            alarm: Whether this rank has found a reason to stop the run.

        Returns:
            Signal that any rank has received, or None, and whether any has such a reason.
        """
        if not _grouped():
            return self.signal, alarm
        state = torch.tensor([self.signal or 0, alarm])
        dist.all_reduce(state, dist.ReduceOp.MAX, group=self._group)
        number, found = state.tolist()
        return number or None, bool(found)

    def exit(self, number: int, iteration: int, logger: logging.Logger) -> None:
        """Ends this process once all ranks are here; the checkpoint is written by then.

        Raises:
            SystemExit: With code 75.
        """
        logger.warning('stopped by %s after iteration %d, the checkpoint is written; resume with '
                       '--auto-resume', signal.Signals(number).name, iteration)
        # As soon as one process has ended, the launcher ends the others with a signal, which must
        # not change their exit code. Python's own handlers do not run while it shuts down.
        ignore_signals()
        if _grouped():
            dist.barrier(group=self._group)
        raise SystemExit(PREEMPTED)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number


class PreemptionHook(Hook):
    """Stops a run after the iteration in which a rank was signalled, or found that it diverges.

    The hook runs before the evaluation, which may take long. An evaluation that was due in that
    iteration is made when the run is resumed.

    Args:
        preemption: Stop signals of this process.
        last_save: Where the checkpoint goes if the work dir has no room.
    """

    def __init__(self, preemption: Preemption, last_save: LastSave):
        self.preemption, self._last_save = preemption, last_save

    def before_run(self, runner: BaseRunner) -> None:
        """Creates the group in which ranks agree."""
        self.preemption.join()

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Stops the run if any rank was asked to, or must.

        Raises:
            SystemExit: With code 75, once the checkpoint is written.
            SaveError: If it could not be written.
            Diverged: If the run has diverged.
        """
        number, diverged = self.preemption.agree(has_diverged(runner))
        if number is not None or diverged:
            check_finite(runner)
        if number is None:
            return
        for hook in runner.hooks:  # They would run after this hook.
            if isinstance(hook, LoggerHook):
                hook.after_train_iter(runner)
        save_at_stop(runner, self._last_save)
        self.preemption.exit(number, runner.iter + 1, runner.logger)


def save_at_stop(runner: BaseRunner, last_save: LastSave) -> None:
    """Saves the checkpoint of a run that ends early; called on all ranks.

    Raises:
        SaveError: If neither the work dir nor the spare folder takes it.
    """
    def save(folder: str) -> SaveError | None:
        try:
            if not is_sharded(runner.model):
                make_folder(folder)
            runner.save_checkpoint(folder)
        except SaveError as error:
            return error
        return None

    if runner.rank == 0 or is_sharded(runner.model):
        last_save.save_now(save, runner.work_dir, runner.work_dir, runner.logger)


def shield_worker(_worker: int) -> None:
    """Keeps a loader worker alive until the last step when the whole job is signalled.

    The worker ends with its loader, or with its main process: see :func:`end_workers`.
    """
    ignore_signals()


def end_workers() -> None:
    """Ends shielded workers that are still alive when the process exits.

    After an error, something may still hold their loader. Python would then end them by SIGTERM,
    which they ignore, and wait for them forever.
    """
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for a killed worker
    for worker in workers:
        worker.kill()


# Whoever shields workers needs it. It runs before multiprocessing's own, which torch's import has
# registered.
atexit.register(end_workers)


def ignore_signals() -> None:
    """Ignores the signals for the rest of this process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
