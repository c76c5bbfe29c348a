"""Ends a run in good order when it is asked to: SIGTERM and SIGUSR1.

Every rank may be signalled or only one, at any moment. At the end of the iteration the ranks agree,
the checkpoint is written, and all of them exit with code 75, which tells whoever started the run
(dist_train.sh, slurm_train.sh) that it can be resumed with ``--auto-resume``.
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

from ..distributed.parallelize import is_sharded

PREEMPTED = 75  # the exit code; EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """Signals that ask a run to stop, and the exit that all ranks take together.

    Attributes:
        signal: Signal that this process got; None so far.
    """

    def __init__(self):
        self.signal: int | None = None
        self._group: dist.ProcessGroup | None = None

    def listen(self) -> None:
        """Takes over the signals; to be called in the main thread."""
        atexit.register(end_workers)  # before multiprocessing's own, which was registered earlier
        for number in SIGNALS:
            signal.signal(number, self._note)

    def requested(self) -> bool:
        """Returns whether this process was asked to stop."""
        return self.signal is not None

    def join(self) -> None:
        """Makes the group in which ranks agree: on the CPU, where no GPU has to wait for it."""
        if _grouped() and dist.get_backend() != 'gloo':
            self._group = dist.new_group(backend='gloo')

    def agree(self) -> int | None:
        """Returns the signal that any rank has got."""
        if not _grouped():
            return self.signal
        number = torch.tensor(self.signal or 0)
        dist.all_reduce(number, dist.ReduceOp.MAX, group=self._group)
        return int(number) or None

    def exit(self, number: int, iteration: int, logger: logging.Logger) -> None:
        """Ends this process, once all ranks have come here with their checkpoint written.

        Raises:
            SystemExit: With code 75.
        """
        logger.warning('stopped by %s after iteration %d, the checkpoint is written; resume with '
                       '--auto-resume', signal.Signals(number).name, iteration)
        # The launcher ends the others with a signal as soon as one has ended: from here on it must
        # not change their exit code, and Python gives its own handlers up while it shuts down.
        ignore_signals()
        if _grouped():
            dist.barrier(group=self._group)
        raise SystemExit(PREEMPTED)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number


class PreemptionHook(Hook):
    """Stops a run after the iteration in which a rank was asked to.

    It comes before the evaluation, which may last: the one that was due in that iteration is made
    when the run is resumed.

    Args:
        preemption: Signals of this process.
    """

    def __init__(self, preemption: Preemption):
        self.preemption = preemption

    def before_run(self, runner: BaseRunner) -> None:
        """Makes the group in which ranks agree."""
        self.preemption.join()

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Stops the run if any rank was asked to.

        Raises:
            SystemExit: With code 75, once the checkpoint is written.
            SaveError: If it could not be.
        """
        number = self.preemption.agree()
        if number is None:
            return
        for hook in runner.hooks:  # those that would come after
            if isinstance(hook, LoggerHook):
                hook.after_train_iter(runner)
        if runner.rank == 0 or is_sharded(runner.model):
            runner.save_checkpoint(runner.work_dir)
        self.preemption.exit(number, runner.iter + 1, runner.logger)


def shield_worker(_worker: int) -> None:
    """Keeps a loader worker alive when the whole job is signalled, until the last step.

    It ends with its loader, or when its process is gone; see :func:`end_workers`.
    """
    ignore_signals()


def end_workers() -> None:
    """Ends shielded workers that are left when the process exits.

    After an error something may still hold their loader. Python would end them by SIGTERM then,
    which they ignore, and wait for them for ever.
    """
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def ignore_signals() -> None:
    """Ignores the signals for the rest of this process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
