"""The lines of a training's log: losses, learning rate, times, memory and the time that is left."""
import time
from collections.abc import Callable, Mapping
from typing import Any

import mmcv
import torch
import torch.distributed as dist
from mmcv.runner import HOOKS, BaseRunner, TextLoggerHook

from ..files import append_line
from ..peak_memory import process_peak
from ..progress import is_terminal
from ..units import MIB
from .iteration_timer import estimate
from .log_files import warn_of_loss

SOON, SILENCE = 10., 30.  # seconds without a line at the start, and later


def losses_line(values: Mapping[str, Any], end: int, left: str | None) -> str:
    """Formats the losses of a training or validation after an iteration, as mmcv does.

    Args:
        values: Values to log by name.
        end: Number of iterations of the run.
        left: Time that is left; None where it is not known.
    """
    title, parts = f'Iter(val) [{values["iter"]}]\t', []
    if values['mode'] == 'train':
        lr = values['lr'] if isinstance(values['lr'], dict) else {'': values['lr']}
        title = f'Iter [{values["iter"]}/{end}]\t'
        parts = [' '.join(f'lr{name and f"_{name}"}: {rate:.3e}' for name, rate in lr.items())]
        parts += [f'eta: {left}'] if left else []
    first = ('time', 'data_time', 'memory')
    names = [name for name in first if name in values] + [
        name for name in values if name not in ('mode', 'epoch', 'iter', 'lr', *first)]
    for name in names:
        value, digits = values[name], 3 if name in first else 4
        parts.append(f'{name}: {value:.{digits}f}' if isinstance(value, float) else
                     f'{name}: {value}')
    return title + ', '.join(parts)


@HOOKS.register_module('TextLoggerHook', force=True)
class SegTextLoggerHook(TextLoggerHook):
    """Extends mmcv's hook: time that is left, peaks of the whole run, and full disks.

    The time that is left includes evaluations, and is right after a run was resumed. The peak
    memory is that of the process, also after evaluations have measured parts of it. Where the disk
    is full, lines of the log are lost, whole ones, and the run goes on. The last iteration has a
    line, too, and where there is no terminal with a progress bar, no ``SILENCE`` goes by without.
    """

    _lost = False
    _said = 0.  # when there was a line last

    def before_run(self, runner: BaseRunner) -> None:
        """Opens the JSON log."""
        super().before_run(runner)
        self._said = time.monotonic() + SOON - SILENCE

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Logs an iteration, if that is due."""
        if (not self.by_epoch and self.is_last_iter(runner) and runner.log_buffer.val_history
                and not self.every_n_iters(runner, self.interval)):
            runner.log_buffer.average((runner.iter + 1) % self.interval)
        super().after_train_iter(runner)
        if not self.by_epoch and not is_terminal() and time.monotonic() - self._said > SILENCE:
            self._said = time.monotonic()
            runner.logger.info('Iter [%d/%d]\teta: %s', runner.iter + 1, runner.max_iters,
                               estimate(runner, runner.iter + 1))

    def _log_info(self, log_dict: dict, runner: BaseRunner) -> None:
        """Logs a line of losses; those of all metrics are mmcv's, for the file alone."""
        self._said = time.monotonic()
        if self.by_epoch or log_dict['mode'] != 'train' and 'loss_val' not in log_dict:
            super()._log_info(log_dict, runner)
        else:
            left = estimate(runner, log_dict['iter'])
            runner.logger.info('%s', losses_line(log_dict, runner.max_iters, left))

    def _dump_log(self, log_dict: dict, runner: BaseRunner) -> None:
        """Appends a line to the JSON log, on rank 0."""
        if runner.rank == 0:
            rounded = {key: self._round_float(value) for key, value in log_dict.items()}
            rounded.update(self._progress(log_dict, runner))
            self._guarded(runner, lambda: append_line(
                self.json_log_path, mmcv.dump(rounded, file_format='json')))

    def _progress(self, log_dict: dict, runner: BaseRunner) -> dict[str, int]:
        """Returns what ``iter`` of a line does not tell: see :mod:`..evaluation.training_log`.

        ``start`` of the first line is the number of iterations done; ``step`` of another is its
        iteration, where ``iter`` counts the batches of an evaluation, or within an epoch.
        """
        if 'mode' not in log_dict:
            return dict(start=runner.iter)
        after_epoch = self.by_epoch and log_dict['mode'] == 'val'
        step = runner.iter if after_epoch else runner.iter + 1
        return {} if log_dict.get('iter') == step else dict(step=step)

    def after_run(self, runner: BaseRunner) -> None:
        """Copies the logs to ``out_dir``."""
        self._guarded(runner, lambda: super(SegTextLoggerHook, self).after_run(runner))

    def _guarded(self, runner: BaseRunner, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if not self._lost:
                warn_of_loss(runner.logger, error.filename or self.json_log_path, error)
            self._lost = True

    def _get_max_memory(self, runner: BaseRunner) -> int:
        """Returns the largest peak of all ranks in MiB, that of a GPU or, on the CPU, 0."""
        device = getattr(runner.model, 'output_device', None)
        if device is None:  # a run on the CPU of a machine that has a GPU
            return 0
        own = process_peak(torch.device('cuda', device)) // MIB
        if runner.world_size == 1:
            return own
        peak = torch.full((), own, device='cuda')
        dist.all_reduce(peak, dist.ReduceOp.MAX)
        return int(peak)
