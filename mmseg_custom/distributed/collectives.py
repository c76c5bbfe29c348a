"""Exchanges Python values between the processes of a run; a single process keeps its own."""
from typing import TypeVar

import torch.distributed as dist

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


def gather_to_rank0(value: T) -> list[T] | None:
    """Returns the values of all ranks, in their order, on rank 0, and None on the others.

    Meant for values of any size: nccl would copy all of them onto the GPU of rank 0, so they go
    through a gloo group, from the memory of one host to that of another.
    """
    if _world_size() == 1:
        return [value]
    values = [value] * dist.get_world_size() if dist.get_rank() == 0 else None
    gloo = dist.new_group(backend='gloo')
    dist.gather_object(value, values, dst=0, group=gloo)
    dist.destroy_process_group(gloo)
    return values


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
