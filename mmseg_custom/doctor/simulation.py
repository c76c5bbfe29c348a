"""Devices and processes that are not there, for a training step on fake tensors of the CPU."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from ..losses.upsampled import strips_sized_for


@contextmanager
def simulate_gpu() -> Iterator[None]:
    """Runs operations on the CPU with the memory that they need on a GPU.

    These are operations that are one kernel there, and losses that are computed in larger strips.
    """
    with _GPUFunctions(), strips_sized_for('cuda'):
        yield


@contextmanager
def simulate_processes(ranks: int, per_node: int | None = None) -> Iterator[DeviceMesh]:
    """Initialises a process group of which only this process exists.

    Args:
        ranks: Number of processes.
        per_node: Processes of a node, for a mesh of nodes and their processes; default: all
            processes in one row.

    Yields:
        The mesh of all processes.

    Raises:
        InputError: If this process is a part of a real group.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore
    if dist.is_initialized():
        raise InputError('the doctor simulates a process group: run it by itself, not under a '
                         'launcher')
    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=ranks)
    try:
        shape, names = (ranks,), ('shard',)
        if per_node and ranks % per_node == 0:
            shape, names = (ranks // per_node, per_node), ('replicate', 'shard')
        yield init_device_mesh('cpu', shape, mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


class FakeAddresses(TorchFunctionMode):
    """Makes the cache of position embeddings compute each time.

    It compares addresses, which fake tensors do not have, but not those of inference tensors.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return True if func is Tensor.is_inference else func(*args, **(kwargs or {}))


class _GPUFunctions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.rms_norm and hasattr(torch.ops.aten, '_fused_rms_norm'):
            return _FusedRMSNorm.apply(args[0], args[2])
        return func(*args, **(kwargs or {}))


class _FusedRMSNorm(torch.autograd.Function):
    """Keeps what torch's fused RMSNorm keeps: its input, and one float32 number of each token."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        root = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        ctx.save_for_backward(x, weight, root)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)
