"""Copies between the host and a GPU that neither of them waits for.

A copy overlaps with what the GPU computes if it comes from, or goes to, pinned memory, on a stream
of its own. Before a copy from other memory CUDA waits until the stream is idle, `non_blocking` or
not.
"""
from typing import Any

import torch
from torch import Tensor

from ..compat.data_containers import change_tensors


def copy_stream(device: str) -> 'torch.cuda.Stream | None':
    """Returns a stream for copies that overlap with what a GPU computes; None on 'cpu'."""
    return torch.cuda.Stream() if device == 'cuda' else None


class DeviceCopy:
    """A batch on its way to the GPU.

    Args:
        batch: Batch on the CPU: see :func:`..compat.data_containers.change_tensors`.
        stream: Stream of the copy; None for a batch that stays on the CPU.
    """

    def __init__(self, batch: Any, stream: 'torch.cuda.Stream | None'):
        self._batch = batch
        self._tensors: list[Tensor] = []
        if stream is not None:
            with torch.cuda.stream(stream):
                self._batch = change_tensors(self._copy, batch)
                self._copied = stream.record_event()

    def _copy(self, tensor: Tensor) -> Tensor:
        # A loader has pinned it, unless another collation than mmcv's made the batch.
        tensor = tensor if tensor.is_pinned() else tensor.pin_memory()
        self._tensors.append(tensor.to('cuda', non_blocking=True))
        return self._tensors[-1]

    def arrive(self) -> Any:
        """Returns the batch; the current stream waits until it is there, the host does not."""
        if self._tensors:
            stream = torch.cuda.current_stream()
            stream.wait_event(self._copied)
            for tensor in self._tensors:  # else its memory could be given away while it is read
                tensor.record_stream(stream)
        return self._batch


class HostCopy:
    """A tensor on its way to the host.

    Args:
        tensor: Tensor on any device; it must not be changed afterwards.
        stream: Stream of the copy; default: the current one, after what it computes.
    """

    def __init__(self, tensor: Tensor, stream: 'torch.cuda.Stream | None' = None):
        self._tensor = tensor
        self._arrived: torch.cuda.Event | None = None
        if tensor.device.type == 'cuda':
            # Others would be copied once more on the host, which would not wait for the first copy.
            self._copy(tensor.contiguous(), stream, torch.cuda.current_stream())

    def _copy(self, tensor: Tensor, stream: 'torch.cuda.Stream | None',
              compute: torch.cuda.Stream) -> None:
        with torch.cuda.stream(stream or compute):
            if stream is not None:
                stream.wait_stream(compute)
                tensor.record_stream(stream)
            self._tensor = tensor.to('cpu', non_blocking=True)  # in pinned memory
            self._arrived = torch.cuda.Event(blocking=True)  # waits without taking a core
            self._arrived.record()

    def has_arrived(self) -> bool:
        """Returns whether :meth:`wait` returns at once."""
        if self._arrived is not None and self._arrived.query():
            self._arrived = None
        return self._arrived is None

    def wait(self) -> Tensor:
        """Returns the tensor on the CPU once it has arrived; called in any thread."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        return self._tensor
