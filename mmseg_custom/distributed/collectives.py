"""Exchanges values between the processes of a run; a single process keeps its own.

Python values go from the memory of one host to that of another where the process group takes
tensors of the CPU, as those of :mod:`.launch` do, and else, in a group of nccl alone, through the
current GPU.
"""
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar('T')


def broadcast_from_rank0(value: T) -> T:
    """Returns the value of rank 0 on every rank."""
    if _world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_to_all(value: T) -> list[T]:
    """Returns the values of all ranks, in their order, on every rank."""
    values = [value] * _world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def mean_over_ranks(value: Tensor) -> Tensor:
    """Returns the mean of a tensor over all ranks, on its device; called on all ranks."""
    if _world_size() == 1:
        return value
    mean = value / _world_size()
    dist.all_reduce(mean)
    return mean


def gather_to_rank0(value: T) -> list[T] | None:
    """Returns the values of all ranks, in their order, on rank 0, and None on the others.

    Meant for values of any size: nccl would copy all of them onto the GPU of rank 0, so they go
    from the memory of one host to that of another.
    """
    if _world_size() == 1:
        return [value]
    values = [value] * dist.get_world_size() if dist.get_rank() == 0 else None
    group = cpu_group()
    dist.gather_object(value, values, dst=0, group=group)
    if group is not None:
        dist.destroy_process_group(group)
    return values


def cpu_group() -> dist.ProcessGroup | None:
    """Returns a group of all ranks that takes tensors of the CPU; called on all ranks.

    Returns:
        None, which stands for the default group, if that takes them; else a new group of gloo.
    """
    return None if 'cpu:' in dist.get_backend_config() else new_group(backend='gloo')


def new_group(ranks: Sequence[int] | None = None, backend: str | None = None
              ) -> dist.ProcessGroup:
    """Creates a group with the timeout of the default one; called on all ranks.

    torch would give it the timeout of its backend, 10 minutes for nccl.

    Args:
        ranks: Ranks of its processes; default: all.
        backend: Its backend; default: that of the default group.
    """
    return dist.new_group(ranks and list(ranks), timeout=_timeout(), backend=backend)


def broadcast_batch_norm(model: nn.Module) -> None:
    """Broadcasts the batch norm statistics of rank 0 to all ranks, as mmseg's evaluation does."""
    if _world_size() == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for statistics in (module.running_var, module.running_mean):
                if statistics is not None:
                    dist.broadcast(statistics, 0)


def _timeout() -> timedelta | None:
    """Returns the timeout of the default group, which torch keeps in its backends alone."""
    world = dist.group.WORLD
    assert world is not None
    for device in world._device_types:
        options = getattr(world._get_backend(device), 'options', None)
        if options is not None:
            return options._timeout
    return None


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
