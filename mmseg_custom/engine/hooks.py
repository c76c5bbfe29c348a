"""Hooks of the mmcv runner: precision, the optimizer's step, checkpoints, the log."""
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import mmcv
import torch
import torch.distributed as dist
from mmcv.runner import (
    HOOKS,
    BaseRunner,
    CheckpointHook,
    Hook,
    OptimizerHook,
    TextLoggerHook,
)
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..checkpoint.work_dir import checkpoints_in, remove_checkpoint
from ..distributed.parallelize import is_sharded, unwrap
from ..distributed.precision import apply_precision
from ..files import SaveError, append_line, make_folder
from ..peak_memory import process_peak
from ..progress import is_terminal
from ..units import MIB
from .divergence import check_finite
from .iteration_timer import estimate
from .last_save import LastSave
from .log_buffer import DeferredLogBuffer
from .log_files import warn_of_loss

SOON, SILENCE = 10., 30.  # seconds without a line at the start, and later


class _PrecisionHook(Hook):
    """Applies the precision policy before the first iteration.

    The tools of this project apply it earlier, before the optimizer and DDP are built; mmseg's
    tools do not.
    """

    dtype: torch.dtype

    def before_run(self, runner: BaseRunner) -> None:
        """Applies the policy: see :mod:`mmseg_custom.distributed.precision`."""
        apply_precision(unwrap(runner.model), self.dtype)


@HOOKS.register_module()
class ToBFloat16Hook(_PrecisionHook):
    """Lets the backbone compute in bfloat16, the heads in float32; trained weights stay float32."""

    dtype = torch.bfloat16


@HOOKS.register_module()
class ToFloat16Hook(_PrecisionHook):
    """Lets the backbone compute in float16, the heads in float32; trained weights stay float32.

    Intended for frozen backbones on GPUs without bfloat16: gradients are not scaled.
    """

    dtype = torch.float16


@HOOKS.register_module('OptimizerHook', force=True)
class SegOptimizerHook(OptimizerHook):
    """Extends mmcv's hook to accumulated and to sharded gradients.

    The runner runs the backward pass of all batches of an iteration but the last, which is left to
    this hook. The gradients are therefore cleared before the iteration.
    """

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Clears the gradients."""
        runner.optimizer.zero_grad()

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Runs the last backward pass, clips the gradients, and takes the optimizer step."""
        if self.detect_anomalous_params:
            self.detect_anomalous_parameters(runner.outputs['loss'], runner)
        (runner.outputs['loss'] / getattr(runner, 'accumulation', 1)).backward()
        if self.grad_clip is not None:
            norm = clip_gradients(runner.model, **self.grad_clip)
            deferred = isinstance(runner.log_buffer, DeferredLogBuffer)  # mmcv's takes numbers
            runner.log_buffer.update({'grad_norm': norm if deferred else norm.item()},
                                     runner.outputs['num_samples'])
        runner.optimizer.step()


def clip_gradients(model: nn.Module, max_norm: float, norm_type: float = 2.0,
                   error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """Clips the gradients to a norm of at most ``max_norm``, over all parameters and ranks.

    Returns:
        Norm before clipping, (), on the device of the gradients: nothing here waits for it.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters], norm_type, error_if_nonfinite, foreach)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    clip_grads_with_norm_(parameters, max_norm, norm, foreach)
    return norm


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
        peak = torch.full((), process_peak(torch.device('cuda', device)) // MIB, device='cuda')
        if runner.world_size > 1:
            dist.all_reduce(peak, dist.ReduceOp.MAX)
        return int(peak)


@HOOKS.register_module('CheckpointHook', force=True)
class SegCheckpointHook(CheckpointHook):
    """Extends mmcv's hook: a save that fails ends no training, unless it is that of the end.

    What has diverged is not saved. If saving fails, training continues and no checkpoint is
    removed. The checkpoint of the last iteration is tried again, also in a spare folder; without
    it, the run fails when it has done all else.

    Args:
        *args: Arguments of mmcv's hook.
        last_save: How the checkpoint of the last iteration is insisted on.
        **kwargs: Arguments of mmcv's hook.
    """

    def __init__(self, *args, last_save: LastSave | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.last_save = last_save or LastSave()
        self._lost: SaveError | None = None

    def _save_checkpoint(self, runner: BaseRunner) -> None:
        check_finite(runner)
        if self.is_last_epoch(runner) if self.by_epoch else self.is_last_iter(runner):
            error = self._lost = self.last_save.insist(
                partial(self._save_in, runner), self.out_dir, runner.work_dir, runner.iter + 1,
                runner.logger)
        else:
            error = self._save_in(runner, self.out_dir)
            if error is not None:
                runner.logger.error('training continues without this checkpoint: %s', error)
        if error is None and self.max_keep_ckpts > 0 and runner.rank == 0 and not self.by_epoch:
            remove_older(self.out_dir, runner.iter + 1, self.max_keep_ckpts)

    def after_run(self, runner: BaseRunner) -> None:
        """Lets a run without its last checkpoint fail, after the last evaluation.

        Raises:
            SaveError: If the weights of the last iteration are on no disk; on all ranks.
        """
        if self._lost is not None:
            raise self._lost

    def _save_in(self, runner: BaseRunner, folder: str) -> SaveError | None:
        """Saves a checkpoint, on all ranks if the model is sharded; returns why it is not there."""
        try:
            if runner.rank == 0 and not is_sharded(runner.model):
                make_folder(folder)  # the work dir may have been removed in the meantime
            if folder == self.out_dir and not is_sharded(runner.model):
                super()._save_checkpoint(runner)  # which saves on rank 0
            elif is_sharded(runner.model) or runner.rank == 0:
                path = runner.save_checkpoint(folder, save_optimizer=self.save_optimizer,
                                              **self.args)
                runner.meta.setdefault('hook_msgs', {})['last_ckpt'] = path
        except SaveError as error:
            return error
        if runner.rank == 0 and runner.meta is not None:
            runner.logger.info('saved %s', runner.meta['hook_msgs']['last_ckpt'])
        return None


def remove_older(folder: str, done: int, kept: int) -> None:
    """Removes all but the newest checkpoints of the iterations up to a given one.

    Args:
        folder: Folder of the checkpoints, including those written at a preemption.
        done: Last iteration whose checkpoint counts.
        kept: Number of checkpoints to keep.
    """
    found = [path for number, path in checkpoints_in(folder) if number <= done]
    for path in found[:-kept]:
        remove_checkpoint(path)
