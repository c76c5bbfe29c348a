"""Evaluation during training, and the record of the best score."""
import os.path as osp
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.distributed as dist
from mmcv.runner import BaseRunner, get_dist_info
from mmcv.runner.hooks import LoggerHook
from mmseg.core import EvalHook
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from ..checkpoint.work_dir import remove_checkpoint
from ..distributed.collectives import broadcast_from_rank0
from ..distributed.parallelize import is_sharded
from ..files import SaveError
from . import best
from .blame import reading
from .predict import predict_all


class SegEvalHook(EvalHook):
    """Evaluates on all ranks, persists the best score across restarts, and drops NaN classes.

    Scores are floats, because PyTorch 2.6 and newer load checkpoints with ``weights_only=True``,
    which refuses numpy scalars: with a numpy score, no later checkpoint could be read.

    Args:
        loader: Loader of the validation data.
        device: Device of the model, 'cuda' or 'cpu'.
        broadcast_bn_buffer: Whether the ranks evaluate with the batch norm statistics of rank 0.
        tmpdir: Accepted for mmseg's configs: results are gathered without files.
        gpu_collect: Accepted for mmseg's configs, see ``tmpdir``.
        **options: Options of mmseg's ``EvalHook`` and of the data set's ``evaluate``.
    """

    best_ckpt_path: str | None

    def __init__(self, loader: DataLoader, device: str, broadcast_bn_buffer: bool = True,
                 tmpdir: str | None = None, gpu_collect: bool = False, **options):
        super().__init__(loader, **options)
        self.device, self.broadcast_bn_buffer = device, broadcast_bn_buffer

    def before_epoch(self, runner: BaseRunner) -> None:
        """Repeats the evaluation that was due when the run was interrupted."""
        if not self.is_due(runner):
            return
        runner.logger.info('the evaluation of iteration %d was not finished: it is repeated now',
                           runner.iter)
        with rewound(runner):
            self._do_evaluate(runner)
            for hook in runner.hooks:
                if isinstance(hook, LoggerHook) and runner.log_buffer.ready:  # on rank 0
                    hook.log(runner)

    def is_due(self, runner: BaseRunner) -> bool:
        """Returns whether the evaluation of the last iteration is still due."""
        if self.by_epoch or runner.iter == 0 or getattr(runner, 'evaluated', None) == runner.iter:
            return False
        with rewound(runner):
            return self._should_evaluate(runner)

    def _do_evaluate(self, runner: BaseRunner) -> None:
        if self._should_evaluate(runner):
            with reading('model, data.val or evaluation', 'fails in the evaluation'):
                self.latest_results, = self.predict([runner.model])
                self.take(runner, self.latest_results)

    def predict(self, models: Sequence[nn.Module], **options) -> list[list]:
        """Predicts the validation data with each model.

        Args:
            models: Wrapped segmentors.
            **options: Options of :func:`.predict.predict_all`.

        Returns:
            Results of each model; on rank 0, those of the whole data set.
        """
        if self.broadcast_bn_buffer:
            for model in models:
                broadcast_batch_norm(model)
        keep = None
        if self.pre_eval:
            def keep(labels: list, indices: list[int]) -> list:
                return self.dataloader.dataset.pre_eval(labels, indices=indices)
        return [found.in_order() for found in
                predict_all(models, self.dataloader, self.device, keep, **options)]

    def take(self, runner: BaseRunner, results: list) -> None:
        """Evaluates results, logs the metrics and saves the best checkpoint.

        Args:
            runner: Runner of the model.
            results: Results of the whole data set on rank 0; ignored on other ranks.
        """
        score = None
        runner.log_buffer.clear()
        if runner.rank == 0:
            runner.log_buffer.output['eval_iter_num'] = len(self.dataloader)
            score = self.evaluate(runner, results)
        sharded = is_sharded(runner.model)
        if sharded:  # All ranks save.
            score = broadcast_from_rank0(score)
        if self.save_best and (sharded or runner.rank == 0) and score is not None:
            self._save_ckpt(runner, score)
        self._persist(runner)

    def evaluate(self, runner: BaseRunner, results: list) -> float | None:
        """Returns the score of the key indicator."""
        score = super().evaluate(runner, results)
        output = runner.log_buffer.output
        for name in [name for name, value in output.items() if value != value]:
            del output[name]  # NaN: the class is neither in the ground truth nor predicted.
        return None if score is None else float(score)

    def _persist(self, runner: BaseRunner) -> None:
        """Records the best score for a run that is resumed after this iteration."""
        if runner.rank == 0 and not self.by_epoch:
            try:
                best.write(runner.work_dir, runner.iter + 1, runner.meta.get('hook_msgs', {}))
            except SaveError as error:
                runner.logger.error('the best score is lost if the run is interrupted: %s', error)

    def _save_ckpt(self, runner: BaseRunner, score: float) -> None:
        """Saves the best checkpoint, and only then removes the previous one.

        mmcv removes it first, and has no best checkpoint if saving fails.
        """
        record = runner.meta.setdefault('hook_msgs', {})
        if not self.compare_func(score, record.get('best_score', self.init_value_map[self.rule])):
            return
        before = self.best_ckpt_path
        done = runner.epoch + 1 if self.by_epoch else runner.iter + 1
        name = (f'best_{self.key_indicator}_{"epoch" if self.by_epoch else "iter"}_{done}'
                f'{runner.checkpoint_suffix}')
        path = osp.join(self.out_dir, name)
        previous = dict(record)
        record.update(best_score=score, best_ckpt=path)
        try:
            runner.save_checkpoint(self.out_dir, name, create_symlink=False)
        except SaveError as error:
            runner.meta['hook_msgs'] = previous
            runner.logger.error('the previous best checkpoint is kept: %s', error)
            return
        self.best_ckpt_path = path
        if before and before != path and osp.exists(before) and runner.rank == 0 and (
                osp.abspath(osp.dirname(before)) == osp.abspath(self.out_dir)):
            remove_checkpoint(before)  # One in another work dir, resumed from, is kept.
        runner.logger.info('best %s so far: %.4f, saved as %s', self.key_indicator, score, path)


@contextmanager
def rewound(runner: BaseRunner) -> Iterator[None]:
    """Rewinds the runner by one iteration, as hooks expect."""
    runner.mode, runner._iter = 'train', runner.iter - 1
    try:
        yield
    finally:
        runner._iter += 1


def broadcast_batch_norm(model: nn.Module) -> None:
    """Broadcasts the batch norm statistics of rank 0 to all ranks, as mmseg's evaluation does."""
    if get_dist_info()[1] == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for statistics in (module.running_var, module.running_mean):
                if statistics is not None:
                    dist.broadcast(statistics, 0)
