"""Ends a run in good order when it is asked to: SIGTERM and SIGUSR1.

Every rank may be signalled or only one, at any moment. At the end of the iteration the ranks agree,
the checkpoint is written, and all of them exit with code 75, which says to whoever started the run
(dist_train.sh, slurm_train.sh) that it can go on with ``--auto-resume``.
"""
import atexit
import multiprocessing
import signal

import torch
import torch.distributed as dist
from mmcv.runner import BaseRunner, Hook
from mmcv.runner.hooks import LoggerHook

from ..distributed.parallelize import is_sharded

PREEMPTED = 75  # the exit code; EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptionHook(Hook):
    """Watches for the signals; see the module. Its place is before an evaluation, which may last.

    The evaluation that was due in that iteration is made when the run goes on.
    """

    def __init__(self):
        self.asked_by: int | None = None
        self.group = None

    def listen(self) -> None:
        """Takes over the signals; to be called in the main thread."""
        atexit.register(end_workers)  # before multiprocessing's own, which was registered earlier
        for number in SIGNALS:
            signal.signal(number, self._note)

    def before_run(self, runner: BaseRunner) -> None:
        """Makes the group in which ranks agree: on the CPU, where no GPU has to wait for it."""
        if dist.is_available() and dist.is_initialized() and dist.get_backend() != 'gloo':
            self.group = dist.new_group(backend='gloo')

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Stops the run if any rank was asked to.

        Raises:
            SystemExit: With code 75, once the checkpoint is written.
            SaveError: If it could not be.
        """
        number = self._agree()
        if number is None:
            return
        for hook in runner.hooks:  # those that would come after
            if isinstance(hook, LoggerHook):
                hook.after_train_iter(runner)
        if runner.rank == 0 or is_sharded(runner.model):
            runner.save_checkpoint(runner.work_dir)
        runner.logger.warning('stopped by %s after iteration %d, the checkpoint is written; go on '
                              'with --auto-resume', signal.Signals(number).name, runner.iter + 1)
        # The launcher ends the others with a signal as soon as one has ended: from here on it must
        # not change their exit code, and Python gives its own handlers up while it shuts down.
        ignore_signals()
        if runner.world_size > 1:
            dist.barrier(group=self.group)
        raise SystemExit(PREEMPTED)

    def _agree(self) -> int | None:
        """The signal that any rank has got."""
        if not (dist.is_available() and dist.is_initialized()):
            return self.asked_by
        asked = torch.tensor(self.asked_by or 0)
        dist.all_reduce(asked, dist.ReduceOp.MAX, group=self.group)
        return int(asked) or None

    def _note(self, number: int, _frame: object) -> None:
        self.asked_by = number


def shield_worker(_worker: int) -> None:
    """For workers of a loader: a signal to the whole job must not end them before the last step.

    They end with their loader, or when its process is gone; see :func:`end_workers`.
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
