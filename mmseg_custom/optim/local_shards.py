"""An optimizer's step on this process's shards as plain tensors.

Each operation of an optimizer on sharded tensors (DTensor) first works out how its result is
sharded, on the host, and a GPU may wait meanwhile (``python -m benchmarks step_overheads``). An
optimizer that computes each element from that element alone needs none of it, and gets the same
bits from the shards themselves.
"""
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, optim
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ..shards import own_shard

# Those of torch whose update is elementwise. Others may look at a whole matrix or a norm.
ELEMENTWISE = (optim.AdamW, optim.Adam, optim.SGD, optim.NAdam, optim.RAdam, optim.RMSprop,
               optim.Adamax, optim.Adagrad, optim.Adadelta, optim.ASGD)


def take_step(optimizer: Optimizer) -> None:
    """Takes a step of an optimizer; an elementwise one of sharded weights computes on the shards.

    Before and after the step its parameters and its state are sharded tensors.
    """
    if type(optimizer) not in ELEMENTWISE or not any(
            isinstance(p, DTensor) for group in optimizer.param_groups for p in group['params']):
        optimizer.step()
        return
    with torch.no_grad(), _on_shards(optimizer):
        optimizer.step()


@contextmanager
def _on_shards(optimizer: Optimizer) -> Iterator[None]:
    """Gives an optimizer the shards in the place of its parameters, gradients and state."""
    whole = [group['params'] for group in optimizer.param_groups]
    state, shards = optimizer.state, [[own_shard(p) for p in params] for params in whole]
    given = {shard: {name: own_shard(value) for name, value in state[p].items()}
             for params, own in zip(whole, shards) for p, shard in zip(params, own) if p in state}
    optimizer.state = defaultdict(dict, {shard: dict(values) for shard, values in given.items()})
    try:
        for group, params, own in zip(optimizer.param_groups, whole, shards):
            group['params'] = own
            for p, shard in zip(params, own):
                if shard is not p:
                    shard.grad = None if p.grad is None else own_shard(p.grad)
        yield
    finally:
        found, optimizer.state = optimizer.state, state
        for group, params, own in zip(optimizer.param_groups, whole, shards):
            group['params'] = params
            for p, shard in zip(params, own):
                if shard is not p:
                    shard.grad = None  # FSDP2 keeps the tensor itself
                if shard in found:
                    _keep(state[p], given.get(shard, {}), found[shard], p)


def _keep(state: dict, given: dict, found: dict, parameter: Tensor) -> None:
    """Puts what a step left into the state of a parameter; new tensors are sharded like it.

    Args:
        state: State of the parameter, whose memory the step has changed.
        given: State of the shard before the step.
        found: State of the shard after the step.
        parameter: The parameter.
    """
    for name, value in found.items():
        if name in given and given[name] is value:
            continue
        if isinstance(parameter, DTensor) and isinstance(value, Tensor) and (
                value.shape == parameter.to_local().shape and value.ndim == parameter.ndim > 0):
            value = DTensor.from_local(value, parameter.device_mesh, parameter.placements,
                                       run_check=False, shape=parameter.shape,
                                       stride=parameter.stride())
        state[name] = value
