"""Stops a run that diverges, before anything of it is saved or scored.

A loss that is NaN or infinite makes all weights so in the same step. The numbers of an iteration
are therefore checked, but the host does not wait for them: they are copied behind the GPU's work
and read when they have arrived, some iterations later. Before a checkpoint or an evaluation, where
the host waits anyway, all of them are read, and the weights too.
"""
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from mmcv.runner import BaseRunner, Hook
from torch import Tensor
from torch.nn.utils import get_total_norm

from ..checkpoint.work_dir import checkpoints_in
from ..distributed.collectives import gather_to_all
from ..errors import InputError
from ..shards import own_shard
from .checkpoint_writer import wait_for_checkpoint
from .copies import HostCopy

WAY_OUT = ('Try a smaller optimizer.lr or optimizer_config.grad_clip=dict(max_norm=1.0), or go on '
           'with --allow-nonfinite')


class Diverged(InputError):
    """Signals a loss, a gradient norm or a weight that is NaN or infinite.

    Args:
        fault: What is not finite, when, and at which learning rate.
        way_out: What to do about it.
    """

    def __init__(self, fault: str, way_out: str):
        super().__init__(f'{fault}: {way_out}')
        self.fault = fault


@dataclass(frozen=True)
class Fault:
    """The first non-finite number of this process.

    Attributes:
        iteration: Number of the iteration, from 1.
        what: What it is, with its value.
        lr: Learning rate of the iteration, the largest of all parameter groups.
        of_weights: Whether it is in the weights, which a loss of another process may have spoilt.
    """
    iteration: int
    what: str
    lr: float
    of_weights: bool = False

    def __str__(self) -> str:
        return f'{self.what} in iteration {self.iteration}, at a learning rate of {self.lr:g}'


@dataclass(frozen=True)
class _PendingCopy:
    """Numbers of an iteration on their way to the host; those of a GPU may not have arrived yet."""
    iteration: int
    lr: float
    names: tuple[str, ...]
    values: HostCopy  # (number of names,)

    def fault(self) -> Fault | None:
        for name, value in zip(self.names, self.values.wait().tolist()):
            if not math.isfinite(value):
                return Fault(self.iteration, f'{name} is {value}', self.lr)
        return None


class DivergenceHook(Hook):
    """Checks the loss and, where gradients are clipped, their norm in every iteration.

    It runs right after the optimizer's step. In one process it stops the run itself; several agree
    once an iteration, in :class:`.preemption.PreemptionHook`, so that they stop together.
    """

    def __init__(self):
        self._unread: deque[_PendingCopy] = deque()
        self._fault: Fault | None = None

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Sends the numbers of the iteration to the host, and looks at those that are there.

        Raises:
            Diverged: In a run of one process, if one is not finite.
        """
        if numbers := _numbers(runner):
            self._unread.append(_send(runner.iter + 1, largest_lr(runner), numbers))
        if self.has_found() and runner.world_size == 1:
            self.check(runner)

    def after_run(self, runner: BaseRunner) -> None:
        """Checks the last iterations; called on all ranks.

        Raises:
            Diverged: If a number or a weight is not finite.
        """
        self.check(runner, done=runner.iter)

    def has_found(self) -> bool:
        """Returns whether this process has seen a fault, without waiting for the GPU."""
        while self._unread and self._unread[0].values.has_arrived():
            fault = self._unread.popleft().fault()
            self._fault = self._fault or fault
        return self._fault is not None

    def check(self, runner: BaseRunner, done: int | None = None) -> None:
        """Reads all numbers so far and the trained weights; called on all ranks.

        Args:
            runner: Runner of the model.
            done: Number of iterations done; default: as within ``after_train_iter``.

        Raises:
            Diverged: On every rank, if one is not finite on any.
        """
        for numbers in self._unread:
            numbers.values.wait()
        if not self.has_found():
            self._fault = _fault_of_weights(runner, runner.iter + 1 if done is None else done)
        found = [fault for fault in gather_to_all(self._fault) if fault is not None]
        if not found:
            return
        wait_for_checkpoint(runner)
        kept = [path for _, path in checkpoints_in(runner.work_dir)]
        first = min(found, key=lambda fault: (fault.iteration, fault.of_weights))
        raise Diverged(
            str(first), 'the run is stopped; '
            + (f'{kept[-1]} is its last checkpoint' if kept else 'it has no checkpoint yet')
            + f'. {WAY_OUT}')


def has_diverged(runner: BaseRunner) -> bool:
    """Returns whether this process knows already that a run diverges."""
    return any(hook.has_found() for hook in runner.hooks if isinstance(hook, DivergenceHook))


def check_finite(runner: BaseRunner) -> None:
    """Checks a run before it is saved or scored; called on all ranks.

    Raises:
        Diverged: If it has diverged, unless it is allowed to.
    """
    for hook in runner.hooks:
        if isinstance(hook, DivergenceHook):
            hook.check(runner)


def _numbers(runner: BaseRunner) -> dict[str, Tensor | float]:
    """Returns the loss of an iteration and, if it was computed, the norm of its gradients.

    Not the norm where a hook scales the loss: it then leaves out steps whose gradients overflow.
    """
    loss = runner.outputs['log_vars'].get('loss', runner.outputs.get('loss'))
    numbers = {} if loss is None else {'the loss': loss}
    norms = runner.log_buffer.val_history.get('grad_norm')
    if norms and not any(hasattr(hook, 'loss_scaler') for hook in runner.hooks):
        numbers['the gradient norm'] = norms[-1]
    return numbers


def largest_lr(runner: BaseRunner) -> float:
    """Returns the learning rate of an iteration, the largest of all parameter groups."""
    rates = runner.current_lr()
    return max(max(rates.values(), key=max) if isinstance(rates, dict) else rates)


def _send(iteration: int, lr: float, numbers: Mapping[str, Tensor | float]) -> _PendingCopy:
    """Starts the copy of numbers to the host."""
    tensors = [torch.as_tensor(value).detach().float().reshape(()) for value in numbers.values()]
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
    if device is not None:
        tensors = [tensor.to(device, non_blocking=True) for tensor in tensors]
    return _PendingCopy(iteration, lr, tuple(numbers), HostCopy(torch.stack(tensors)))


def _fault_of_weights(runner: BaseRunner, iteration: int) -> Fault | None:
    """Looks for NaN and infinity in the trained weights of this process, or its shards of them."""
    trained = ((name, p) for name, p in runner.model.named_parameters() if p.requires_grad)
    local = {name: own_shard(p).detach() for name, p in trained}
    local = {name: p for name, p in local.items() if p.numel()}
    if not local or math.isfinite(_largest(local.values())):
        return None
    name, value = next((name, largest) for name, p in local.items()
                       if not math.isfinite(largest := _largest([p])))
    return Fault(iteration, f'{name.removeprefix("module.")} holds {value}', largest_lr(runner),
                 of_weights=True)


def _largest(tensors: Iterable[Tensor]) -> float:
    """Returns the largest absolute value, NaN if there is one."""
    return float(get_total_norm(tensors, norm_type=math.inf))
