"""Stops a run cleanly on SIGTERM, SIGUSR1, SIGHUP and Ctrl-C.

All ranks or only one may be signalled, at any moment. At the end of the iteration, or of an
evaluation's batch, the ranks agree to stop, the checkpoint is written, and all of them exit: with
code 75, which tells the launcher (dist_train.sh, slurm_train.sh) that the run can be resumed with
``--auto-resume``, and after Ctrl-C with 130, which nothing restarts.
"""
import logging
import os.path as osp
import signal
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist
from mmcv.runner import BaseRunner, CheckpointHook, Hook
from mmcv.runner.hooks import LoggerHook
from mmseg.utils import get_root_logger

from ..distributed.collectives import cpu_group
from ..processes import INTERRUPTED, PREEMPTED
from .checkpoint_writer import wait_for_checkpoint
from .divergence import check_finite, has_diverged
from .last_save import LastSave, save_at_stop
from .stop_signals import (
    NOTHING_DONE,
    Interrupts,
    StopRequested,
    heard,
    ignore_signals,
)


class Preemption:
    """Stop signals of this process, and the exit that all ranks take together.

    Attributes:
        signal: Signal that this process has received, or None.
        trained: Whether there is something to save: Ctrl-C before ends the process at once.
    """

    def __init__(self):
        self.signal: int | None = None
        self.trained = False
        self._group: dist.ProcessGroup | None = None
        self._interrupts: Interrupts | None = None

    def listen(self) -> None:
        """Installs the signal handlers; called in the main thread."""
        for number in heard():
            signal.signal(number, self._note)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a script's background
            self._interrupts = Interrupts(self._interrupt)

    def close(self) -> None:
        """Gives Ctrl-C back, for what comes after the training in this process."""
        if self._interrupts is not None:
            self._interrupts.close()
            self._interrupts = None

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

    def check(self) -> None:
        """Leaves what the ranks are at if any was asked to stop; called on all ranks.

        Raises:
            StopRequested: On all ranks.
        """
        number, _ = self.agree()
        if number is not None:
            raise StopRequested(number)

    def exit(self, number: int, iteration: int, logger: logging.Logger) -> NoReturn:
        """Ends this process once all ranks are here; the checkpoint is written by then.

        Raises:
            SystemExit: With code 75, or 130 after Ctrl-C.
        """
        logger.warning('stopped by %s after iteration %d, the checkpoint is written; resume with '
                       '--auto-resume', _name(number), iteration)
        self._leave(number)

    def exit_between_runs(self) -> None:
        """Ends this process if any rank was asked to stop; called on all ranks, between runs.

        Raises:
            SystemExit: With code 75, or 130 after Ctrl-C.
        """
        number, _ = self.agree()
        if number is not None:
            get_root_logger().warning('stopped by %s; resume with --auto-resume', _name(number))
            self._leave(number)

    def _leave(self, number: int) -> NoReturn:
        # As soon as one process has ended, the launcher ends the others with a signal, which must
        # not change their exit code. Python's own handlers do not run while it shuts down.
        ignore_signals()
        if _grouped():
            dist.barrier(group=self._group)
        raise SystemExit(INTERRUPTED if number == signal.SIGINT else PREEMPTED)

    def _interrupt(self) -> None:
        if not self.trained:
            raise KeyboardInterrupt(NOTHING_DONE)
        self.signal = signal.SIGINT
        get_root_logger().warning('Ctrl-C: the run saves a checkpoint after this iteration, and '
                                  'ends; a second Ctrl-C ends it at once')

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number


class PreemptionHook(Hook):
    """Stops a run after the iteration in which a rank was signalled, or found that it diverges.

    The hook runs before the evaluation, which may take long, and is left for a signal too. An
    evaluation that was due in that iteration is made when the run is resumed.

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
            SystemExit: With code 75 or 130, once the checkpoint is written.
            SaveError: If it could not be written.
            Diverged: If the run has diverged.
        """
        self.preemption.trained = True
        number, diverged = self.preemption.agree(has_diverged(runner))
        if number is not None or diverged:
            check_finite(runner)
        if number is None:
            return
        for hook in runner.hooks:  # They would run after this hook.
            if isinstance(hook, LoggerHook):
                hook.after_train_iter(runner)
        self.stop(runner, number)

    def stop(self, runner: BaseRunner, number: int) -> NoReturn:
        """Saves the checkpoint of the current iteration, and ends; called on all ranks.

        Raises:
            SystemExit: With code 75 or 130, once the checkpoint is written.
            SaveError: If it could not be written.
        """
        wait_for_checkpoint(runner)
        if not _just_saved(runner):
            save_at_stop(runner, self._last_save)
        self.preemption.exit(number, runner.iter + 1, runner.logger)


def _just_saved(runner: BaseRunner) -> bool:
    """Whether the hook for checkpoints has saved the current iteration, with its optimizer.

    Only rank 0 knows, unless all ranks have saved: on the others nothing is saved then either.
    """
    name = osp.join(runner.work_dir, f'iter_{runner.iter + 1}')
    last = ((runner.meta or {}).get('hook_msgs') or {}).get('last_ckpt')
    return osp.splitext(str(last))[0] == name and any(
        isinstance(hook, CheckpointHook) and hook.save_optimizer for hook in runner.hooks)


def _name(number: int) -> str:
    return 'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
