"""Hooks of the mmcv runner."""
import os
import os.path as osp

import torch
from mmcv.runner import HOOKS, BaseRunner, CheckpointHook, Hook, master_only
from mmcv.runner.hooks import LoggerHook
from mmseg.core import DistEvalHook, EvalHook

from ..checkpoint import SaveError
from ..distributed.parallelize import unwrap
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


@HOOKS.register_module('CheckpointHook', force=True)
class SegCheckpointHook(CheckpointHook):
    """mmcv's hook, but a checkpoint that cannot be written ends no run and removes no other."""

    @master_only
    def _save_checkpoint(self, runner: BaseRunner) -> None:
        try:
            super()._save_checkpoint(runner)
        except SaveError as error:
            runner.logger.error('training goes on without a checkpoint: %s', error)


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
        name = f'best_{self.key_indicator}_{"epoch" if self.by_epoch else "iter"}_{done}.pth'
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
        if ours and before != path and osp.isfile(before):  # not that of the run it came from
            os.remove(before)
        runner.logger.info('best %s so far: %.4f, saved as %s', self.key_indicator, score, path)


class SegEvalHook(_Evaluation, EvalHook):
    """Evaluates in one process."""


class SegDistEvalHook(_Evaluation, DistEvalHook):
    """Evaluates in all processes of the group."""
