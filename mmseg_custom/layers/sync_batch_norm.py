"""Batch norm over all processes: on GPUs without host waits, and on the CPU, where torch raises.

B batch, C channels, h w grid.
"""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class CPUSyncBatchNorm(_BatchNorm):
    """``torch.nn.SyncBatchNorm`` for processes on the CPU.

    Same parameters, buffers and results. The statistics are reduced with gloo, the mean first and
    then the squared distances from it, so that two processes give what one gives on the whole
    batch; autograd goes through both reductions. All of it is float32, and the output has the dtype
    of the input, as with torch's.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f'expected at least (B, C), got {tuple(x.shape)}')

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if not self.training or dist.get_world_size() == 1:
            return super().forward(x)
        dtype, x = x.dtype, x.float()
        axes = [0, *range(2, x.dim())]
        column = (1, -1, *[1] * (x.dim() - 2))  # (C,) -> (1, C, 1, 1)
        count = all_reduce(x.new_tensor(float(x.numel() // x.shape[1])))
        mean = all_reduce(x.sum(axes)) / count
        centred = x - mean.view(column)
        var = all_reduce(centred.square().sum(axes)) / count
        self._update_running_stats(mean.detach(), var.detach() * count / (count - 1))
        x = centred * torch.rsqrt(var + self.eps).view(column)
        if self.affine:
            x = x * self.weight.view(column) + self.bias.view(column)
        return x.to(dtype)

    def _update_running_stats(self, mean: Tensor, var: Tensor) -> None:
        batches = self.num_batches_tracked
        if (not self.track_running_stats or batches is None or self.running_mean is None
                or self.running_var is None):
            return
        batches.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(batches)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


class GPUSyncBatchNorm(nn.SyncBatchNorm):
    """``torch.nn.SyncBatchNorm`` that never makes the host wait for the GPU.

    torch drops the statistics of processes whose batch is empty, which takes three host waits a
    call: 39 in a step of UperNet. A process that trains has at least one image.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w), B > 0."""
        with _no_empty_batches():
            return super().forward(x)


@contextmanager
def _no_empty_batches() -> Iterator[None]:
    """Lets torch's SyncBatchNorm take all batches for filled.

    It has no option for that, but leaves the check out while a CUDA graph is captured, and asks for
    nothing else then.
    """
    capturing = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = capturing


def adapt_sync_batch_norm(module: nn.Module, device: str) -> nn.Module:
    """Replaces every ``nn.SyncBatchNorm`` inside a module by the one for 'cuda' or 'cpu'."""
    return replace_sync_batch_norm(
        module, CPUSyncBatchNorm if device == 'cpu' else GPUSyncBatchNorm)


def replace_sync_batch_norm(module: nn.Module, kind: type[_BatchNorm]) -> nn.Module:
    """Replaces every ``nn.SyncBatchNorm`` inside a module by another batch norm.

    Parameters and buffers stay the same objects.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.SyncBatchNorm):
            norm = kind(child.num_features, child.eps, child.momentum, child.affine,
                        child.track_running_stats, device='meta')
            norm._parameters, norm._buffers = child._parameters, child._buffers
            norm.training = child.training
            setattr(module, name, norm)
        else:
            replace_sync_batch_norm(child, kind)
    return module
