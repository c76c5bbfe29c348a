"""Copies between the host and a GPU that neither waits for.

A copy overlaps with what the GPU computes if it comes from, or goes to, pinned memory, on a stream
of its own. Before a copy from other memory CUDA waits until the stream is idle, `non_blocking` or
not.
"""
from typing import Any, TypeVar

import torch
from mmcv.parallel import DataContainer
from torch import Tensor

T = TypeVar('T')


class DeviceCopies:
    """Copies values to a device while that computes what was launched before.

    Kernels that are launched afterwards wait for the copy, on the device. Nothing is copied to the
    CPU.

    Args:
        device: 'cuda' or 'cpu'.
    """

    def __init__(self, device: str):
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream() if self._device.type == 'cuda' else None

    def __call__(self, value: T) -> T:
        """Returns a value with its tensors on the device.

        Args:
            value: Tensors in dicts, lists, tuples and mmcv's containers; those of containers for
                the CPU stay there.
        """
        if self._stream is None:
            return value
        compute = torch.cuda.current_stream()
        copies: list[Tensor] = []
        with torch.cuda.stream(self._stream):
            moved = self._moved(value, copies)
        compute.wait_stream(self._stream)
        for copy in copies:
            copy.record_stream(compute)
        return moved

    def _moved(self, value: Any, copies: list[Tensor]) -> Any:
        if isinstance(value, Tensor):
            if value.device.type != 'cpu':
                return value
            copies.append(pinned(value).to(self._device, non_blocking=True))
            return copies[-1]
        if isinstance(value, DataContainer) and not value.cpu_only:
            return DataContainer(self._moved(value.data, copies), value.stack, value.padding_value,
                                 pad_dims=value.pad_dims)
        if isinstance(value, dict):
            return {key: self._moved(item, copies) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._moved(item, copies) for item in value)
        return value


def pinned(tensor: Tensor) -> Tensor:
    """Returns a tensor of the CPU in pinned memory, which copies to a GPU need to overlap."""
    return tensor if tensor.is_pinned() else tensor.pin_memory()


class HostCopy:
    """A tensor on its way to the host.

    Args:
        tensor: Tensor on any device; it must not be changed afterwards.
        stream: CUDA stream that copies; default: the current one, after what it computes.
    """

    def __init__(self, tensor: Tensor, stream: torch.cuda.Stream | None = None):
        self._arrived = None
        if tensor.device.type != 'cuda':
            self._tensor = tensor
            return
        tensor = tensor.contiguous()  # else CUDA copies twice, and the second copy does not wait
        compute = torch.cuda.current_stream()
        with torch.cuda.stream(stream or compute):
            if stream is not None:
                stream.wait_stream(compute)
                tensor.record_stream(stream)
            self._tensor = tensor.to('cpu', non_blocking=True)  # in pinned memory
            self._arrived = torch.cuda.Event(blocking=True)  # waits without taking a core
            self._arrived.record()

    def wait(self) -> Tensor:
        """Returns the tensor on the CPU once it has arrived; called in any thread."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensor
