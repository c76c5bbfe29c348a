"""Exponential moving averages (EMA) of the trained weights: evaluated, saved and resumed.

    average += momentum * (weight - average)    after each optimizer step

mmcv's EMAHook takes the averages for evaluations and checkpoints at the ends of epochs, which a run
by iterations does not have: it evaluates and saves the weights, and the averages lie unused beside
them. Here they change places for as long as an evaluation or a checkpoint takes.
"""
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmcv.runner import BaseRunner, Hook
from mmseg.utils import get_root_logger
from torch import Tensor, nn

from ..checkpoint import Checkpoint
from ..checkpoint.averages import swapped_name
from ..checkpoint.sharded import load_tensor
from ..distributed.parallelize import unwrap
from ..errors import InputError

MARK = 'ema'  # in the meta of a checkpoint whose averages are under the names of the weights
NAME = 'EMAHook'  # mmcv's, in configs


class SegEMAHook(Hook):
    """Takes the place of mmcv's EMAHook, with its options and its formula.

    Only trained weights are averaged. Statistics of batch norms are not: averages are evaluated
    with those of the weights, as with mmcv's hook.

    Args:
        momentum: Share of a weight in its new average.
        interval: Number of iterations between updates; the momentum is then its power, as mmcv's.
        warm_up: In about so many iterations at the start, averages follow the weights faster.
        resume_from: Accepted for mmcv's configs: a run that is resumed has its averages, too.

    Attributes:
        averages: Averages by the names of their weights, which are in their place while they are
            evaluated or saved.

    Raises:
        InputError: If an option is out of its range.
    """

    def __init__(self, momentum: float = 0.0002, interval: int = 1, warm_up: int = 100,
                 resume_from: str | None = None):
        if not 0 < momentum < 1 or interval < 1 or warm_up < 1:
            raise InputError(f'EMAHook: momentum={momentum!r}, interval={interval!r}, '
                             f'warm_up={warm_up!r}: expected a momentum between 0 and 1, and '
                             'numbers of iterations of 1 or more')
        self.momentum, self.interval, self.warm_up = momentum ** interval, interval, warm_up
        self.averages: dict[str, Tensor] = {}

    def before_run(self, runner: BaseRunner) -> None:
        """Begins with the weights of the start, unless the run is resumed.

        Raises:
            InputError: If the weights are stored in 16 bits.
        """
        weights = trained_weights(runner.model)
        if any(weight.element_size() < 4 for weight in weights.values()):
            raise InputError('EMAHook: the trained weights are stored in 16 bits, too few for an '
                             'average that moves slowly: use another optimizer than '
                             'LowMemoryAdamW, or no EMAHook')
        if not self.averages:
            self.averages = {name: weight.clone() for name, weight in weights.items()}

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Updates the averages."""
        if runner.iter % self.interval:
            return
        weights = {name: p.detach() for name, p in unwrap(runner.model).named_parameters()
                   if p.requires_grad}  # sharded, since the backward pass
        momentum = min(self.momentum, (1 + runner.iter) / (self.warm_up + runner.iter))
        torch._foreach_lerp_([self.averages[name] for name in weights], list(weights.values()),
                             momentum)

    def restore(self, runner: BaseRunner, checkpoint: Checkpoint) -> None:
        """Restores averages and weights, once the model holds the checkpoint's own weights.

        Args:
            runner: Runner of the model.
            checkpoint: Opened checkpoint. In one of mmcv's hook, the averages are beside the
                weights.

        Raises:
            InputError: If some of the tensors are missing, or a file is damaged.
        """
        weights = trained_weights(runner.model)
        missing = [name for name in weights if swapped_name(name) not in checkpoint.weights]
        if len(missing) == len(weights):
            runner.logger.warning('%s is of a run without EMAHook: averages start from its weights',
                                  checkpoint.path)
            return
        if missing:
            raise InputError(f'{checkpoint.path} holds no average of {missing[0]}: resume with the '
                             'config it was trained with, or give it as --load-from')
        self.averages = {name: weight.clone() for name, weight in weights.items()}
        targets = weights if MARK in checkpoint.meta else self.averages
        for name, target in targets.items():
            load_tensor(target, checkpoint, swapped_name(name))

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Puts the averages into the place of the weights.

        Yields:
            The weights, by the names that a checkpoint has for them.
        """
        weights = trained_weights(model)
        _swap(weights, self.averages)
        try:
            yield {swapped_name(name): tensor for name, tensor in self.averages.items()}
        finally:
            _swap(weights, self.averages)


@contextmanager
def averaged(runner: BaseRunner) -> Iterator[dict[str, Tensor]]:
    """Puts averages, if the run has some, into the place of the weights.

    Yields:
        More tensors for a checkpoint: see :meth:`SegEMAHook.swapped`.
    """
    for hook in runner.hooks:
        if isinstance(hook, SegEMAHook) and hook.averages:
            with hook.swapped(runner.model) as weights:
                yield weights
            return
    yield {}


def restore_averages(runner: BaseRunner, checkpoint: Checkpoint) -> None:
    """Restores the averages of a run that is resumed, if it has some."""
    for hook in runner.hooks:
        if isinstance(hook, SegEMAHook):
            hook.restore(runner, checkpoint)


def build_ema_hook(options: Mapping[str, Any]) -> SegEMAHook:
    """Builds the hook of an entry of ``custom_hooks`` whose type is mmcv's EMAHook.

    Raises:
        InputError: If an option is unknown.
    """
    if options.get('resume_from'):
        get_root_logger().warning('EMAHook.resume_from has no effect: a run that is resumed, with '
                                  '--resume-from or --auto-resume, has its averages, too')
    try:
        return SegEMAHook(**{name: value for name, value in options.items() if name != 'type'})
    except TypeError as error:
        raise InputError(f'custom_hooks: {dict(options)}: {error}; expected momentum, interval and '
                         'warm_up') from error


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the trained weights of a wrapped model, or this process's shards of them.

    FSDP2 may hold whole weights between two forward passes; it lets go of them for a state dict.
    """
    module = unwrap(model)
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name in trained}


def _swap(weights: Mapping[str, Tensor], averages: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        kept = weight.clone()
        weight.copy_(averages[name])
        averages[name].copy_(kept)
