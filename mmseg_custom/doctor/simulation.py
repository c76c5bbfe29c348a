"""Devices and processes that are not there, for a training step on fake tensors of the CPU."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from ..losses.upsampled import strips_sized_for


@contextmanager
def simulate_device(device: str) -> Iterator[None]:
    """Runs operations on fake tensors of the CPU with the memory that they need on a device.

    On a GPU that is one kernel for each RMSNorm, and losses that are computed in larger strips.
    """
    # Fake tensors have no address, by which the cache of position embeddings knows what it was
    # computed from. It keeps nothing of inference tensors.
    functions = {Tensor.is_inference: lambda _: True}
    if device == 'cuda' and hasattr(torch.ops.aten, '_fused_rms_norm'):
        functions[torch.rms_norm] = lambda x, shape, weight, eps: _FusedRMSNorm.apply(x, weight)
    with _Replaced(functions), strips_sized_for(device):
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


class _Replaced(TorchFunctionMode):
    """Calls other functions instead of some of torch's."""

    def __init__(self, functions: dict[Callable, Callable]):
        super().__init__()
        self.functions = functions

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.functions.get(func, func)(*args, **(kwargs or {}))


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
