"""Values that the processes of a group exchange."""
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar('T')


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def broadcast_from_rank0(value: T) -> T:
    """Returns the value of rank 0 on every rank."""
    if _ranks() == 1:
        return value
    shared: list[Any] = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def gather_to_rank0(value: T) -> list[T] | None:
    """Gathers a value of host memory from every rank.

    Returns:
        One value a rank on rank 0, None on the others.
    """
    if _ranks() == 1:
        return [value]
    gloo = dist.new_group(backend='gloo')  # results lie in the memory of the host
    parts: list[Any] | None = [None] * _ranks() if dist.get_rank() == 0 else None
    dist.gather_object(value, parts, dst=0, group=gloo)
    dist.destroy_process_group(gloo)
    return parts


def gather_to_all(value: T) -> list[T]:
    """Returns the values of all ranks on every rank."""
    if _ranks() == 1:
        return [value]
    values: list[Any] = [None] * _ranks()
    dist.all_gather_object(values, value)
    return values
