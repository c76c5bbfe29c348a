"""The loss of validation images during training: ``workflow=[('train', N), ('val', M)]``.

As in mmseg's training, these are the images of ``data.val`` with the training's pipeline, in M
batches after every N iterations.
"""
from collections import Counter
from collections.abc import Iterator

import torch
from mmcv.runner import BaseRunner, Hook
from mmcv.runner.hooks import LoggerHook

from ..distributed.parallelize import evaluation_mode
from .ema import averaged
from .foreign_settings import read_workflow
from .loaders import build_endless_loader
from .randomness import SeededSamples
from .run import Run


class ValidationLossHook(Hook):
    """Logs the mean loss of some validation batches, under the names of mmseg: 'loss_val'.

    It runs after the loggers, whose line of the training it leaves alone. Its batches follow from
    the seed and the iteration, so that a resumed run has the same ones.

    Args:
        run: Run with validation data for losses.
    """

    def __init__(self, run: Run):
        self.interval, self.batches = read_workflow(run.cfg.workflow)
        self._run, self._samples = run, SeededSamples(run.data['val_loss'], run.seed)
        self._stream: Iterator[dict] | None = None

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Computes and logs the losses, if they are due; called on all ranks."""
        if not self.every_n_iters(runner, self.interval):
            return
        if self._stream is None:
            done = runner.iter // self.interval * self.batches
            self._stream = iter(build_endless_loader(self._run, self._samples, done))
        runner.log_buffer.clear_output()
        runner.log_buffer.output.update(self._losses(runner, self._stream))
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):
                hook.log(runner)
        runner.log_buffer.clear_output()

    def _losses(self, runner: BaseRunner, stream: Iterator[dict]) -> dict[str, float]:
        total: Counter[str] = Counter()
        runner.model.eval()
        with torch.no_grad(), averaged(runner), evaluation_mode(runner.model):
            for _ in range(self.batches):
                values = runner.model.val_step(next(stream))['log_vars']
                total.update({name: value / self.batches for name, value in values.items()})
        return dict(total)
