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
from ..layers.rms_norm import STRIP, RMSNorm
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
    on_gpu = device == 'cuda'
    for layer in quantized_layers(model) if on_gpu else ():
        layer.has_product = _has_product
    if not on_gpu or hasattr(torch.ops.aten, '_fused_rms_norm_backward'):
        _simulate_norms(model, on_gpu)


def _has_product(kind: str, device: torch.device) -> bool:
    return True


def _simulate_norms(model: nn.Module, on_gpu: bool) -> None:
    for name, child in model.named_children():
        if type(child) is RMSNorm or on_gpu and type(child) is nn.RMSNorm:
            setattr(model, name, _SimulatedRMSNorm(child, on_gpu))
        else:
            _simulate_norms(child, on_gpu)


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


class _SimulatedRMSNorm(nn.Module):
    """Allocates what RMSNorm allocates in one kernel, or a strip of rows at a time.

    The first is PyTorch's on CUDA (2.9 and newer), the second that of :mod:`..layers.rms_norm` on
    the CPU, which leaves fake tensors to PyTorch's. That consists of plain operations there, which
    keep five float32 tensors.
    """

    def __init__(self, norm: nn.RMSNorm, on_gpu: bool):
        super().__init__()
        self.weight, self.eps, self.on_gpu = norm.weight, norm.eps, on_gpu

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self.on_gpu or x.numel() > STRIP:
            return _RMSNormKernel.apply(x, self.weight, self.on_gpu)
        return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class _RMSNormKernel(torch.autograd.Function):
    """(..., D), (D,) -> (..., D)."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, on_gpu: bool) -> Tensor:
        y = torch.empty_like(x.contiguous())  # the kernel copies strided tokens
        rstd = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        ctx.save_for_backward(x, weight, rstd)
        ctx.on_gpu = on_gpu
        return y

    @staticmethod
    def backward(ctx, of_y: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, _ = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x.contiguous()), None
        if ctx.on_gpu:
            of_weight = torch.empty_like(weight)
        elif ctx.needs_input_grad[1]:  # it is summed up over the rows at the end
            of_weight = x.new_empty(x.shape, dtype=torch.float32).sum_to_size(weight.shape)
        return of_x, None if of_weight is None else of_weight.to(weight.dtype), None
