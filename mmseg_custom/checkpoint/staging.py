"""Copies of a checkpoint's tensors on the host, which are written while the training goes on.

Their memory is reused by the next save: allocating it, and above all pinning it, takes longer than
copying. Tensors of results, which need no memory that stays, are copied by
:class:`..engine.copies.HostCopy`.
"""
import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..shards import own_shard
from .lazy import LazyTensor

T = TypeVar('T')
Key = tuple[object, ...]  # keys and positions that lead to a tensor


class HostCopies:
    """Copies of the tensors in dicts, lists and tuples, one set at a time.

    Args:
        pinned: Whether those of a GPU's tensors are in pinned memory, which a GPU writes fastest.
    """

    def __init__(self, pinned: bool = False):
        self.pinned = pinned
        self._kept: dict[Key, Tensor] = {}

    def bytes_to_take(self, content: object, pinned: bool) -> int:
        """Returns the bytes to allocate for copies, in addition to the memory that is reused.

        Args:
            content: Content to copy.
            pinned: Whether the copies will be in pinned memory.
        """
        return sum(_taken(source, pinned) for key, source in _distinct(content)
                   if not self._fits(key, source))

    def copy(self, content: T) -> T:
        """Returns a copy, which is valid until the next call; waits until it is complete.

        Args:
            content: Dicts, lists and tuples with tensors, sharded, lazy or plain ones.

        Raises:
            RuntimeError: If the memory cannot be allocated.
        """
        copies: dict[Key, Tensor] = {}
        by_source: dict[int, Any] = {}
        devices = set()
        for key, source in _distinct(content):
            copies[key] = self._kept[key] if self._fits(key, source) else self._memory_for(source)
            by_source[id(source)] = copies[key]
            if isinstance(source, LazyTensor):
                copies[key].copy_(source.read())
                source.release()
            else:
                target, local = own_shard(copies[key]), own_shard(source.detach())
                target.copy_(local, non_blocking=True)
                devices.add(local.device)
        self._kept = copies
        for device in devices:
            if device.type == 'cuda':
                torch.cuda.current_stream(device).synchronize()
        # deepcopy takes what it finds by the id of an object for its copy.
        return copy.deepcopy(content, by_source)

    def release(self) -> None:
        """Frees the memory."""
        self._kept = {}

    def _fits(self, key: Key, source: Tensor | LazyTensor) -> bool:
        kept = self._kept.get(key)
        return (kept is not None and tuple(kept.shape) == tuple(source.shape)
                and kept.dtype == source.dtype and isinstance(kept, DTensor) == isinstance(
                    source, DTensor) and own_shard(kept).shape == own_shard(source).shape)

    def _memory_for(self, source: Tensor | LazyTensor) -> Tensor:
        if isinstance(source, LazyTensor):
            return torch.empty(source.shape, dtype=source.dtype)
        pinned = self.pinned and source.is_cuda
        return torch.empty_like(source, device='cpu', pin_memory=pinned, requires_grad=False)


def bytes_of(content: object) -> int:
    """Returns the bytes of all tensors in dicts, lists and tuples; of sharded ones, the shards'."""
    return sum(own_shard(source).nbytes for _, source in _distinct(content))


def _distinct(content: object) -> Iterator[tuple[Key, Tensor | LazyTensor]]:
    """Yields each tensor once, with the keys that lead to it."""
    seen: set[int] = set()
    for key, tensor in _tensors(content, ()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield key, tensor


def _tensors(content: object, key: Key) -> Iterator[tuple[Key, Tensor | LazyTensor]]:
    if isinstance(content, (Tensor, LazyTensor)):
        yield key, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _tensors(value, (*key, name))
    elif isinstance(content, (list, tuple)):
        for position, value in enumerate(content):
            yield from _tensors(value, (*key, position))


def _taken(source: Tensor | LazyTensor, pinned: bool) -> int:
    """Returns the bytes of a copy; torch takes pinned memory in powers of two."""
    nbytes = own_shard(source).nbytes
    if not pinned or isinstance(source, LazyTensor) or not source.is_cuda or not nbytes:
        return nbytes
    return 1 << (nbytes - 1).bit_length()
