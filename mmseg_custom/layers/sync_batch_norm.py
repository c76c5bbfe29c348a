"""Batch norm over all processes of the CPU, where torch's own raises.

B batch, C channels, h w grid.
"""
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class CPUSyncBatchNorm(_BatchNorm):
    """``torch.nn.SyncBatchNorm`` for processes on the CPU.

    Same parameters, buffers and results. The statistics are reduced with gloo, the mean first and
    then the squared distances from it, so that two processes give what one gives on the whole
    batch; autograd goes through both reductions.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f'expected at least (B, C), got {tuple(x.shape)}')

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if not self.training or dist.get_world_size() == 1:
            return super().forward(x)
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
        return x

    def _update_running_stats(self, mean: Tensor, var: Tensor) -> None:
        batches = self.num_batches_tracked
        if (not self.track_running_stats or batches is None or self.running_mean is None
                or self.running_var is None):
            return
        batches.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(batches)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


def sync_batch_norm_on_cpu(module: nn.Module) -> nn.Module:
    """Replaces every ``nn.SyncBatchNorm`` inside a module by :class:`CPUSyncBatchNorm`.

    Parameters and buffers stay the same objects.
    """
    return replace_sync_batch_norm(module, CPUSyncBatchNorm)


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
