"""Hooks of the mmcv runner: precision, the optimizer's step, checkpoints."""
import time
from collections.abc import Callable
from functools import partial

import torch
from mmcv.runner import HOOKS, BaseRunner, CheckpointHook, Hook, OptimizerHook
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..checkpoint.work_dir import checkpoints_in, remove_checkpoint
from ..distributed.parallelize import is_sharded, unwrap
from ..distributed.precision import apply_precision, training_dtype
from ..files import SaveError, make_folder
from ..optim.local_shards import take_step
from .checkpoint_writer import CheckpointWriter, Outcome, save_checkpoint
from .divergence import check_finite
from .last_save import LastSave
from .log_buffer import DeferredLogBuffer

_CONTINUES = 'training continues without this checkpoint: %s'


class _PrecisionHook(Hook):
    """Applies the precision policy before the first iteration.

    The tools of this project apply it earlier, before the optimizer and DDP are built; mmseg's
    tools do not.
    """

    dtype: torch.dtype

    def before_run(self, runner: BaseRunner) -> None:
        """Applies the policy: see :mod:`mmseg_custom.distributed.precision`."""
        model = unwrap(runner.model)
        apply_precision(model, training_dtype(self.dtype, model.backbone))


@HOOKS.register_module()
class ToBFloat16Hook(_PrecisionHook):
    """Lets the backbone compute in bfloat16, the heads in float32; trained weights stay float32."""

    dtype = torch.bfloat16


@HOOKS.register_module()
class ToFloat16Hook(_PrecisionHook):
    """Lets the backbone compute in float16, the heads in float32; trained weights stay float32.

    Intended for frozen backbones on GPUs without bfloat16: gradients are not scaled. A backbone
    with a ViT-Adapter, which they pass, is trained in bfloat16.
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
        take_step(runner.optimizer)


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


@HOOKS.register_module('CheckpointHook', force=True)
class SegCheckpointHook(CheckpointHook):
    """Extends mmcv's hook: a save that fails ends no training, unless it is that of the end.

    What has diverged is not saved. If saving fails, training continues and no checkpoint is
    removed. The checkpoint of the last iteration is tried again, also in a spare folder; without
    it, the run fails when it has done all else.

    Args:
        *args: Arguments of mmcv's hook.
        last_save: How the checkpoint of the last iteration is insisted on.
        background: Whether checkpoints are written while the training goes on, those of the best
            scores too; None: those that are large. Where the host has no memory for a copy, the
            training waits. It always waits for the last one.
        **kwargs: Arguments of mmcv's hook.
    """

    def __init__(self, *args, last_save: LastSave | None = None,
                 background: bool | None = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.background = background
        self.last_save = last_save or LastSave()
        self._lost: SaveError | None = None

    def before_run(self, runner: BaseRunner) -> None:
        """Finds the folder, and tells the runner whether to write in the background."""
        super().before_run(runner)
        if isinstance(getattr(runner, 'checkpoint_writer', None), CheckpointWriter):
            runner.checkpoint_writer.background = self.background

    def _save_checkpoint(self, runner: BaseRunner) -> None:
        check_finite(runner)
        done = runner.iter + 1
        if self.is_last_epoch(runner) if self.by_epoch else self.is_last_iter(runner):
            error = self._lost = self.last_save.insist(
                partial(self._save_in, runner), self.out_dir, runner.work_dir, done,
                runner.logger)
            if error is None:
                self._remove_older(runner, done)
        elif self.by_epoch:
            error = self._save_in(runner, self.out_dir)
            if error is not None:
                runner.logger.error(_CONTINUES, error)
        elif runner.rank == 0 or is_sharded(runner.model):
            self._start(runner, partial(self._finish, runner, done))

    def _start(self, runner: BaseRunner, finished: Callable[[Outcome], None]) -> None:
        """Starts to save the checkpoint of an iteration that is not the last."""
        try:
            if not is_sharded(runner.model):
                make_folder(self.out_dir)
        except SaveError as error:
            finished(Outcome(self.out_dir, error))
            return
        save_checkpoint(runner, self.out_dir, finished, save_optimizer=self.save_optimizer,
                        **self.args)

    def _finish(self, runner: BaseRunner, done: int, outcome: Outcome) -> None:
        """Does what follows once the checkpoint of an iteration is there, or is not to be."""
        if outcome.error is not None:
            runner.logger.error(_CONTINUES, outcome.error)
            return
        if runner.meta is not None:
            runner.meta.setdefault('hook_msgs', {})['last_ckpt'] = outcome.path
        if runner.rank == 0:
            runner.logger.info('saved %s', outcome)
        self._remove_older(runner, done)

    def _remove_older(self, runner: BaseRunner, done: int) -> None:
        if self.max_keep_ckpts > 0 and runner.rank == 0 and not self.by_epoch:
            remove_older(self.out_dir, done, self.max_keep_ckpts)

    def after_run(self, runner: BaseRunner) -> None:
        """Lets a run without its last checkpoint fail, after the last evaluation.

        Raises:
            SaveError: If the weights of the last iteration are on no disk; on all ranks.
        """
        if self._lost is not None:
            raise self._lost

    def _save_in(self, runner: BaseRunner, folder: str) -> SaveError | None:
        """Saves at once, on all ranks if the model is sharded; returns why it is not there."""
        began = time.monotonic()
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
            runner.logger.info('saved %s', Outcome(runner.meta['hook_msgs']['last_ckpt'],
                                                   waited=time.monotonic() - began))
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
