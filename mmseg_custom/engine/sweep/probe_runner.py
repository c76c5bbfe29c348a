"""The runner of a head of a sweep, and the hook that watches its loss."""
import math
from collections.abc import Mapping
from typing import Any

import torch
from mmcv.runner import RUNNERS, BaseRunner, Hook
from torch import Tensor

from ...distributed.collectives import mean_over_ranks
from ...distributed.parallelize import unwrap
from ..divergence import WAY_OUT, Diverged, Fault, largest_lr
from ..runner import SegRunner
from .backbone import completed


@RUNNERS.register_module()
class ProbeRunner(SegRunner):
    """Runner whose checkpoints have the content of those of a single run.

    On the CPU the loss of an iteration decides at once whether a head goes on; on a GPU, where
    the host would have to wait for it, later: see :class:`.losses.LossReader`.
    """

    def save_checkpoint(self, *args, **kwargs) -> str:
        """Saves the complete segmentor: see :class:`SegRunner`."""
        with completed(unwrap(self.model)):
            return super().save_checkpoint(*args, **kwargs)

    def train(self, data_loader: Any, **kwargs) -> None:
        """Runs one iteration, counted from 0 as in mmcv's loop of a single run."""
        self._inner_iter = 0
        super().train(data_loader, **kwargs)

    def begin(self, data_loader: Any) -> None:
        """Calls the hooks before an iteration that a group of heads computes together."""
        self._inner_iter = 0
        self._enter(data_loader)
        self.call_hook('before_train_iter')

    def log_values(self, log_vars: Mapping[str, float | Tensor], samples: int) -> None:
        """Adds the values of such an iteration to the log.

        Args:
            log_vars: Values of this head, which are means over the ranks.
            samples: Number of images of this rank.
        """
        self.outputs = dict(loss=log_vars['loss'], log_vars=dict(log_vars), num_samples=samples)
        self.log_buffer.update(log_vars, samples)

    def end(self) -> None:
        """Calls the hooks after such an iteration.

        Raises:
            Diverged: If the head has diverged.
        """
        self.call_hook('after_train_iter')
        self.outputs = None
        self._leave()


class LossHook(Hook):
    """Stops a head before NaN reaches its weights and moments.

    A loss that is a tensor of a GPU is not read here, which would make the host wait. If it is not
    finite, the gradients that it would spoil the weights with become 0 on the GPU, and
    :class:`.losses.LossReader` stops the head an iteration later.

    Args:
        stops: Whether a head is stopped; else its losses are only noted.

    Attributes:
        loss: Loss of the last iteration, the mean over all ranks, so that they stop together.
    """

    def __init__(self, stops: bool = True):
        self.stops = stops
        self.loss: float | Tensor = math.nan

    def before_run(self, runner: BaseRunner) -> None:
        """Lets the optimizer ask for the loss before each step."""
        if self.stops:
            runner.optimizer.register_step_pre_hook(self._drop_gradients)

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Checks the loss.

        Raises:
            Diverged: If the loss is NaN or infinite, and a number.
        """
        self.loss = runner.outputs['log_vars']['loss']
        if isinstance(self.loss, Tensor):
            self.loss = mean_over_ranks(self.loss.detach())
        elif self.stops and not math.isfinite(self.loss):
            raise divergence_of(self.loss, runner.iter + 1, largest_lr(runner))

    def _drop_gradients(self, optimizer: torch.optim.Optimizer, *_) -> None:
        if isinstance(self.loss, Tensor):
            diverged = ~self.loss.isfinite()
            for group in optimizer.param_groups:
                for p in group['params']:
                    if p.grad is not None:
                        p.grad.masked_fill_(diverged, 0)


def divergence_of(loss: float, iteration: int, lr: float) -> Diverged:
    """Returns the error for a loss that is NaN or infinite."""
    return Diverged(str(Fault(iteration, f'the loss is {loss}', lr)), WAY_OUT)
