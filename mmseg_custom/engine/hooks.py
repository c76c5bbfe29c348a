"""Hooks of the mmcv runner."""
import os
import os.path as osp
import re

import torch
import torch.distributed as dist
from mmcv.runner import HOOKS, BaseRunner, CheckpointHook, Hook, OptimizerHook
from mmcv.runner.hooks import LoggerHook
from mmseg.core import DistEvalHook, EvalHook
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..checkpoint import SaveError, remove_checkpoint
from ..distributed.parallelize import evaluation_mode, is_sharded, unwrap
from ..distributed.precision import apply_precision
from . import best


class _PrecisionHook(Hook):
    """Applies the precision policy before the first iteration.

    Our own tools have applied it by then, before the optimizer and DDP were built; mmseg's tools
    have not.
    """

    dtype: torch.dtype

    def before_run(self, runner: BaseRunner) -> None:
        """Stores and computes as :mod:`mmseg_custom.distributed.precision` says."""
        apply_precision(unwrap(runner.model), self.dtype)


@HOOKS.register_module()
class ToBFloat16Hook(_PrecisionHook):
    """The backbone computes in bfloat16, the heads in float32; trained weights stay float32."""

    dtype = torch.bfloat16


@HOOKS.register_module()
class ToFloat16Hook(_PrecisionHook):
    """The backbone computes in float16, the heads in float32; trained weights stay float32.

    Meant for frozen backbones on GPUs without bfloat16: gradients are not scaled.
    """

    dtype = torch.float16


@HOOKS.register_module('OptimizerHook', force=True)
class SegOptimizerHook(OptimizerHook):
    """mmcv's hook for gradients of several batches, and for shards of gradients.

    The runner has run the other batches of the iteration backwards by the time the last one comes
    here; so the gradients are cleared before the first.
    """

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Clears the gradients."""
        runner.optimizer.zero_grad()

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Runs the last batch backwards, clips, and takes the optimizer's step."""
        if self.detect_anomalous_params:
            self.detect_anomalous_parameters(runner.outputs['loss'], runner)
        (runner.outputs['loss'] / getattr(runner, 'accumulation', 1)).backward()
        if self.grad_clip is not None:
            norm = clip_gradients(runner.model, **self.grad_clip)
            runner.log_buffer.update({'grad_norm': norm}, runner.outputs['num_samples'])
        runner.optimizer.step()


def clip_gradients(model: nn.Module, max_norm: float, norm_type: float = 2.0,
                   error_if_nonfinite: bool = False, foreach: bool | None = None) -> float:
    """Scales the gradients to a norm, over all parameters and ranks, of at most ``max_norm``.

    Returns:
        The norm before.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters], norm_type, error_if_nonfinite, foreach)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    clip_grads_with_norm_(parameters, max_norm, norm, foreach)
    return float(norm)


@HOOKS.register_module('CheckpointHook', force=True)
class SegCheckpointHook(CheckpointHook):
    """mmcv's hook that trains on when a checkpoint cannot be written, and removes none then."""

    def _save_checkpoint(self, runner: BaseRunner) -> None:
        try:
            if is_sharded(runner.model):
                path = runner.save_checkpoint(  # on all ranks
                    self.out_dir, save_optimizer=self.save_optimizer, **self.args)
                runner.meta.setdefault('hook_msgs', {})['last_ckpt'] = path
            else:
                super()._save_checkpoint(runner)  # on rank 0
        except SaveError as error:
            runner.logger.error('training goes on without a checkpoint: %s', error)
            return
        if self.max_keep_ckpts > 0 and runner.rank == 0 and not self.by_epoch:
            self._remove_older(runner.iter + 1)

    def _remove_older(self, done: int) -> None:
        """Keeps the newest ``max_keep_ckpts`` up to an iteration, with those of preemptions."""
        numbers = {name: re.fullmatch(r'iter_(\d+)\.(?:pth|dcp)', name)
                   for name in os.listdir(self.out_dir)}
        found = sorted((int(number.group(1)), name) for name, number in numbers.items()
                       if number and int(number.group(1)) <= done)
        for _, name in found[:-self.max_keep_ckpts]:
            remove_checkpoint(osp.join(self.out_dir, name))


class _Evaluation:
    """Keeps the best score, as a float and over interruptions, and absent classes out of the log.

    PyTorch from 2.6 on loads checkpoints with ``weights_only=True``, which refuses numpy scalars:
    with a numpy score no later checkpoint could be read.
    """

    def before_epoch(self, runner: BaseRunner) -> None:
        """Makes the evaluation that was due when the run was interrupted."""
        if self.by_epoch or runner.iter == 0 or getattr(runner, 'evaluated', None) == runner.iter:
            return
        runner.mode, runner._iter = 'train', runner.iter - 1  # as it was then
        if self._should_evaluate(runner):
            runner.logger.info('the evaluation of iteration %d was not finished: it is made now',
                               runner.iter + 1)
            self._do_evaluate(runner)
            for hook in runner.hooks:
                if isinstance(hook, LoggerHook) and runner.log_buffer.ready:  # on rank 0
                    hook.log(runner)
        runner._iter += 1

    def _do_evaluate(self, runner: BaseRunner) -> None:
        super()._do_evaluate(runner)
        self._keep_record(runner)

    def _keep_record(self, runner: BaseRunner) -> None:
        """Writes down what is known now, for a run that goes on from this iteration."""
        if runner.rank == 0 and not self.by_epoch:
            try:
                best.write(runner.work_dir, runner.iter + 1, runner.meta.get('hook_msgs', {}))
            except SaveError as error:
                runner.logger.error('it is not known after an interruption: %s', error)

    def evaluate(self, runner: BaseRunner, results: list) -> float | None:
        """Returns the score of the key indicator."""
        score = super().evaluate(runner, results)
        output = runner.log_buffer.output
        for name in [name for name, value in output.items() if value != value]:
            del output[name]  # NaN: the class is neither in the truth nor in the predictions
        return None if score is None else float(score)

    def _save_ckpt(self, runner: BaseRunner, score: float) -> None:
        """Saves the best checkpoint; mmcv removes the one before first, and may then have none."""
        record = runner.meta.setdefault('hook_msgs', {})
        if not self.compare_func(score, record.get('best_score', self.init_value_map[self.rule])):
            return
        before = self.best_ckpt_path
        done = runner.epoch + 1 if self.by_epoch else runner.iter + 1
        name = (f'best_{self.key_indicator}_{"epoch" if self.by_epoch else "iter"}_{done}'
                f'{runner.checkpoint_suffix}')
        path = osp.join(self.out_dir, name)
        kept = dict(record)
        record.update(best_score=score, best_ckpt=path)
        try:
            runner.save_checkpoint(self.out_dir, name, create_symlink=False)
        except SaveError as error:
            runner.meta['hook_msgs'] = kept
            runner.logger.error('the best checkpoint stays the one before: %s', error)
            return
        self.best_ckpt_path = path
        ours = before and osp.abspath(osp.dirname(before)) == osp.abspath(self.out_dir)
        if ours and before != path and osp.exists(before) and runner.rank == 0:
            remove_checkpoint(before)  # not that of the run it came from
        runner.logger.info('best %s so far: %.4f, saved as %s', self.key_indicator, score, path)


class SegEvalHook(_Evaluation, EvalHook):
    """Evaluates in one process."""


class SegDistEvalHook(_Evaluation, DistEvalHook):
    """Evaluates in all processes of the group, which share a sharded model meanwhile."""

    def _do_evaluate(self, runner: BaseRunner) -> None:
        if not is_sharded(runner.model):
            return super()._do_evaluate(runner)
        self._score = None
        with evaluation_mode(runner.model):
            DistEvalHook._do_evaluate(self, runner)
        score = [self._score]
        dist.broadcast_object_list(score, src=0)
        if score[0] is not None:
            super()._save_ckpt(runner, score[0])
        self._keep_record(runner)

    def _save_ckpt(self, runner: BaseRunner, score: float) -> None:
        """Saves at once; with a sharded model, rank 0 alone is here: all save afterwards."""
        if is_sharded(runner.model):
            self._score = score
        else:
            super()._save_ckpt(runner, score)
