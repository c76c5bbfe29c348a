"""Wraps a segmentor for one process or many, for mmcv's runner and mmseg's tests to drive."""
import torch
import torch.distributed as dist
from mmcv.parallel import MMDataParallel, is_module_wrapper
from mmcv.parallel.registry import MODULE_WRAPPERS
from mmcv.parallel.scatter_gather import scatter_kwargs
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..models.layers.sync_batch_norm import sync_batch_norm_on_cpu


@MODULE_WRAPPERS.register_module()
class SegmentorDDP(DistributedDataParallel):
    """torch's DDP with the methods that mmcv's runner calls, on GPUs and on the CPU.

    mmcv 1.7's own wrapper goes around torch's forward, through attributes that torch 2 no longer
    has, and asserts CUDA. Here a step runs inside torch's forward, so that its hooks see it.
    """

    def __init__(self, module: nn.Module, device: str, **kwargs):
        self._scatter_to = [torch.cuda.current_device() if device == 'cuda' else -1]
        super().__init__(module, device_ids=self._scatter_to if device == 'cuda' else None,
                         **kwargs)

    def forward(self, *inputs, **kwargs):
        """Unpacks mmcv's DataContainers onto the device, then runs the module."""
        inputs, kwargs = scatter_kwargs(inputs, kwargs, self._scatter_to)
        if not self.training:  # nothing to reduce: ranks may differ in their number of windows
            return self.module(*inputs[0], **kwargs[0])
        return super().forward(*inputs[0], **kwargs[0])

    def train_step(self, *inputs, **kwargs):
        """The module's ``train_step``, inside DDP's forward."""
        return self._step('train_step', *inputs, **kwargs)

    def val_step(self, *inputs, **kwargs):
        """The module's ``val_step``, inside DDP's forward."""
        return self._step('val_step', *inputs, **kwargs)

    def _step(self, name: str, *inputs, **kwargs):
        module = self.module
        step = getattr(module, name)

        def forward(*args, **kws):
            del module.forward  # the step itself calls the module
            return step(*args, **kws)

        module.forward = forward
        try:
            return self(*inputs, **kwargs)
        finally:
            module.__dict__.pop('forward', None)


def wrap_alone(model: nn.Module, device: str) -> nn.Module:
    """Moves a segmentor to its device and wraps it for one process, or for testing in many."""
    if device == 'cuda':
        return MMDataParallel(model.cuda(), device_ids=[torch.cuda.current_device()])
    wrapped = MMDataParallel(model)
    wrapped.device_ids = []  # torch's DataParallel takes every GPU it sees
    return wrapped


def parallelize(model: nn.Module, device: str, find_unused_parameters: bool = False) -> nn.Module:
    """Moves a segmentor to its device and wraps it for training: DDP, or alone in one process.

    Args:
        model: A segmentor with its final dtypes (see :mod:`.precision`).
        device: 'cuda' or 'cpu'.
        find_unused_parameters: For DDP; on by itself where trained blocks are never read.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return wrap_alone(model, device)
    model = model.cuda() if device == 'cuda' else sync_batch_norm_on_cpu(model)
    return SegmentorDDP(model, device, broadcast_buffers=False,
                        find_unused_parameters=find_unused_parameters or _has_unread_blocks(model))


def unwrap(model: nn.Module) -> nn.Module:
    """The segmentor inside a wrapper."""
    return model.module if is_module_wrapper(model) else model


def _has_unread_blocks(model: nn.Module) -> bool:
    backbone = getattr(model, 'backbone', None)
    blocks = getattr(backbone, 'blocks', None)
    if blocks is None or not hasattr(backbone, 'out_indices'):
        return False
    unread = blocks[max(backbone.out_indices) + 1:]
    return any(p.requires_grad for block in unread for p in block.parameters())
