"""Wrappers that mmcv's runner and mmseg's tests drive: one process, DDP or FSDP2, on CPU or GPU.

All of them have ``output_device``, the index of their GPU, None on the CPU: the text logger
reduces the memory of all ranks there, and a group of nccl refuses a tensor of the CPU.
"""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmcv.parallel.registry import MODULE_WRAPPERS
from mmcv.parallel.scatter_gather import scatter_kwargs
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel


class _Wrapper(nn.Module):
    """Holds a segmentor as ``module``, and gives its calls mmcv's batches unpacked on the device.

    Args:
        module: Segmentor on its device.
        device: 'cuda', for the current GPU, or 'cpu'.
    """

    def __init__(self, module: nn.Module, device: str):
        super().__init__()
        self.module = module
        self._target_devices = _target_devices(device)
        self.output_device = self._target_devices[0] if device == 'cuda' else None

    def forward(self, *inputs, **kwargs):
        """Unpacks mmcv's DataContainers onto the device, then runs the module."""
        return self._call(self.module, inputs, kwargs)

    def train_step(self, *inputs, **kwargs):
        """Runs the module's ``train_step``."""
        return self._call(self.module.train_step, inputs, kwargs)

    def val_step(self, *inputs, **kwargs):
        """Runs the module's ``val_step``."""
        return self._call(self.module.val_step, inputs, kwargs)

    def _call(self, function, inputs: tuple, kwargs: dict):
        args, options = scatter_kwargs(inputs, kwargs, self._target_devices)
        return function(*args[0], **options[0])


@MODULE_WRAPPERS.register_module()
class SegmentorAlone(_Wrapper):
    """A segmentor of one process.

    mmcv's ``MMDataParallel`` moves a model to the GPU wherever there is one, also in a run on the
    CPU.
    """


def wrap_alone(model: nn.Module, device: str) -> SegmentorAlone:
    """Moves a segmentor to its device and wraps it for one process."""
    return SegmentorAlone(model.to(device), device)


@MODULE_WRAPPERS.register_module()
class SegmentorDDP(DistributedDataParallel):
    """torch's DDP with what mmcv's runner calls in training, on GPUs and on the CPU.

    mmcv 1.7's own wrapper goes around torch's forward, through attributes that torch 2 no longer
    has, and asserts CUDA. Here a step runs inside torch's forward, so that DDP sees its losses.
    """

    def __init__(self, module: nn.Module, device: str, **kwargs):
        self._target_devices = _target_devices(device)
        super().__init__(module, device_ids=self._target_devices if device == 'cuda' else None,
                         **kwargs)

    def forward(self, *inputs, **kwargs):
        """Unpacks mmcv's DataContainers onto the device, then runs the module."""
        args, options = scatter_kwargs(inputs, kwargs, self._target_devices)
        if not self.training:  # nothing to reduce: ranks may differ in their number of windows
            return self.module(*args[0], **options[0])
        return super().forward(*args[0], **options[0])

    def train_step(self, *inputs, **kwargs):
        """Runs the module's ``train_step`` inside DDP's forward."""
        # DDP's forward calls the module's forward and nothing else, so the step takes its place
        # for one call. A module in between would change the names of all parameters.
        module = self.module

        def forward(*args, **kws):
            del module.forward  # the step itself calls the module
            return module.train_step(*args, **kws)

        module.forward = forward
        try:
            return self(*inputs, **kwargs)
        finally:
            module.__dict__.pop('forward', None)

    def val_step(self, *inputs, **kwargs):
        """Runs the module's ``val_step``; there is nothing to reduce."""
        args, options = scatter_kwargs(inputs, kwargs, self._target_devices)
        return self.module.val_step(*args[0], **options[0])


@MODULE_WRAPPERS.register_module()
class SegmentorFSDP(_Wrapper):
    """A segmentor sharded by :func:`.parallelize.shard`, with what mmcv's runner calls in training.

    The steps of mmseg's segmentors call the segmentor itself, whose hooks gather and reduce.

    Args:
        module: Sharded segmentor on its device.
        device: 'cuda', for the current GPU, or 'cpu'.
        reshards: Whether blocks and heads free their gathered weights after the forward pass.
        reduces_late: Whether gradients that several batches add up are summed over the hosts of a
            hybrid mesh with the last batch alone. In bfloat16 each batch is: partial sums would
            be rounded to it.
        finalizes_late: Whether the reduction of one batch overlaps with the next one's forward
            pass. Offloaded gradients are waited for.
    """

    def __init__(self, module: nn.Module, device: str, reshards: bool = True,
                 reduces_late: bool = False, finalizes_late: bool = True):
        super().__init__(module, device)
        self.reshards, self.reduces_late = reshards, reduces_late
        self.finalizes_late = finalizes_late

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Marks a batch that is not the last one of an optimizer step."""
        self._mark(last=False)
        try:
            yield
        finally:
            self._mark(last=True)

    def _mark(self, last: bool) -> None:
        """Tells FSDP2 whether the next backward pass is the last one of a step."""
        assert isinstance(self.module, FSDPModule)
        self.module.set_is_last_backward(last or not self.finalizes_late)
        if self.reduces_late:
            self.module.set_requires_all_reduce(last)

    def forward(self, *inputs, **kwargs):
        """Unpacks mmcv's DataContainers onto the device, then runs the module.

        Segmentors that can test in lockstep do, unless ``lockstep=False`` is given: with weights
        in shards, every rank waits for the others in every layer.
        """
        testing = not kwargs.get('return_loss', True)
        if testing and getattr(self.module, 'tests_in_lockstep', False):
            kwargs.setdefault('lockstep', True)
        return super().forward(*inputs, **kwargs)


def _target_devices(device: str) -> list[int]:
    """Devices that mmcv's scatter puts tensors on; it calls the CPU -1."""
    return [torch.cuda.current_device() if device == 'cuda' else -1]
