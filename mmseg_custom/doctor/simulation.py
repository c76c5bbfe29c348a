"""Devices and processes that are not there, for a training step on fake tensors of the CPU."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from ..layers.quantized_linear import quantized_layers
from ..layers.rms_norm import RMSNorm
from ..losses.upsampled import strips_sized_for


@contextmanager
def simulate_device(device: str) -> Iterator[None]:
    """Runs a step on fake tensors of the CPU with the memory that it needs on a device.

    On a GPU losses are computed in larger strips.
    """
    with _InferenceTensors(), strips_sized_for(device):
        yield


def simulate_kernels(model: nn.Module, device: str) -> None:
    """Replaces layers that keep other tensors for the backward pass on a device than on the CPU.

    Fake tensors of a GPU would choose its kernels themselves, but autograd runs their backward pass
    only where there is a GPU.
    """
    if device != 'cuda':
        return
    for layer in quantized_layers(model):
        layer.has_product = _has_product
    if hasattr(torch.ops.aten, '_fused_rms_norm_backward'):
        _simulate_norms(model)


def _has_product(kind: str, device: torch.device) -> bool:
    return True


def _simulate_norms(model: nn.Module) -> None:
    for name, child in model.named_children():
        if type(child) in (nn.RMSNorm, RMSNorm):
            setattr(model, name, _FusedRMSNorm(child))
        else:
            _simulate_norms(child)


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
        if per_node and ranks % per_node == 0:
            yield init_device_mesh('cpu', (ranks // per_node, per_node),
                                   mesh_dim_names=('replicate', 'shard'))
        else:
            yield init_device_mesh('cpu', (ranks,), mesh_dim_names=('shard',))
    finally:
        dist.destroy_process_group()


class _InferenceTensors(TorchFunctionMode):
    """Presents all tensors as inference tensors, which the cache of position embeddings skips.

    It compares the addresses of other tensors, and fake ones have none.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return True if func is Tensor.is_inference else func(*args, **(kwargs or {}))


class SimulatedSyncBatchNorm(_BatchNorm):
    """Keeps what torch's SyncBatchNorm keeps on GPUs, where alone that runs.

    That is what plain batch norm keeps, which however refuses a single value per channel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        # Without the running statistics, whose variance would be divided by zero.
        return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, False)


class _FusedRMSNorm(nn.Module):
    """Allocates what PyTorch's CUDA kernel for RMSNorm allocates (2.9 and newer).

    On the CPU RMSNorm consists of plain operations, which keep five float32 tensors.
    """

    def __init__(self, norm: nn.RMSNorm):
        super().__init__()
        self.weight = norm.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return _FusedRMSNormKernel.apply(x, self.weight)


class _FusedRMSNormKernel(torch.autograd.Function):
    """(..., D), (D,) -> (..., D)."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        y = torch.empty_like(x.contiguous())  # the kernel copies strided tokens
        rstd = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        ctx.save_for_backward(x, weight, rstd)
        return y

    @staticmethod
    def backward(ctx, of_y: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x.contiguous()), torch.empty_like(weight)
