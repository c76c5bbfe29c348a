"""Tensors that are read when they are needed, one by one."""
import ctypes
import functools
import mmap
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def release_pages(tensor: Tensor) -> None:
    """Frees the memory of a mapped tensor that was read; its next use reads the file again.

    Without this, reading a file through its mapping counts all of it as resident. Only for tensors
    that were never written to, and only for mapped ones: on other memory it would destroy the
    content.
    """
    if not sys.platform.startswith('linux'):
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    stop = (tensor.data_ptr() + tensor.nbytes) // page * page
    if stop > start:
        _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read, or computed, when it is needed.

    Attributes:
        shape: Shape of the tensor.
        dtype: Dtype of the tensor.
        read: Function that returns the tensor, on the CPU.
        release: Function that frees the memory of what ``read`` returned, if that is a view of a
            file; whoever keeps the view does not call it.
        is_shared: Whether ``read`` returns the same memory each time.
    """
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    release: Callable[[], object] = lambda: None
    is_shared: bool = False

    @classmethod
    def of(cls, tensor: Tensor, mapped: bool = False) -> 'LazyTensor':
        """Wraps a tensor that is there already, or is a view of a mapped file."""
        release = functools.partial(release_pages, tensor) if mapped else cls.release
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor, release, is_shared=True)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def to(self, dtype: torch.dtype) -> 'LazyTensor':
        """Returns the tensor rounded to a dtype."""
        if dtype == self.dtype:
            return self
        return compute(lambda tensor: tensor.to(dtype), [self], self.shape, dtype)

    def chunk(self, count: int) -> list['LazyTensor']:
        """Returns equal parts along the first axis."""
        shape = (self.shape[0] // count, *self.shape[1:])
        return [replace(self, shape=shape, read=functools.partial(
            lambda i: self.read().chunk(count)[i], i)) for i in range(count)]

    def read_bytes(self) -> Tensor:
        """Reads the tensor as (nbytes,) uint8.

        Raises:
            ValueError: If shape or dtype differ from what was announced.
        """
        tensor = self.read()
        if tuple(tensor.shape) != self.shape or tensor.dtype != self.dtype:
            raise ValueError(f'{tuple(tensor.shape)} {tensor.dtype} was made where {self.shape} '
                             f'{self.dtype} was announced')
        return tensor.contiguous().flatten().view(torch.uint8)


def compute(function: Callable[..., Tensor], sources: Sequence[LazyTensor],
            shape: tuple[int, ...], dtype: torch.dtype) -> LazyTensor:
    """Returns a tensor that is computed from others, whose memory is freed then.

    Args:
        function: Function of the sources' tensors; it returns new memory.
        sources: Arguments of the function.
        shape: Shape of the result.
        dtype: Dtype of the result.
    """
    def read() -> Tensor:
        tensor = function(*(source.read() for source in sources))
        for source in sources:
            source.release()
        return tensor

    return LazyTensor(shape, dtype, read)


def concatenate(tensors: Sequence[LazyTensor]) -> LazyTensor:
    """Returns tensors joined along their first axis, in the dtype of the first."""
    first, *others = tensors
    if not others:
        return first
    quantised = [tensor.dtype for tensor in others if tensor.dtype not in FLOATS]
    dtype = (quantised or [first.dtype])[0]  # so that whoever refuses quantised weights sees it
    shape = (sum(tensor.shape[0] for tensor in tensors), *first.shape[1:])
    return compute(lambda *parts: torch.cat(parts).to(dtype), tensors, shape, dtype)


class LazyStateDict(dict[str, LazyTensor]):
    """The tensors of a file (or of two that belong together) by their names; none is read yet.

    Attributes:
        path: Name of the file, for messages.
        unknown: Names in the file that belong to the network but that no model has.
        not_opened: Names that a folder's index lists in files of which nothing is needed.
        taken: Names of the tensors whose memory a model has as its own; common to all copies.
    """

    def __init__(self, path: str, tensors: Mapping[str, LazyTensor],
                 unknown: Iterable[str] = (), not_opened: Iterable[str] = ()):
        super().__init__(tensors)
        self.path = path
        self.unknown = list(unknown)
        self.not_opened = list(not_opened)
        self.taken: set[str] = set()

    def copy(self) -> 'LazyStateDict':
        """Returns another dict of the same tensors."""
        copied = LazyStateDict(self.path, self, self.unknown, self.not_opened)
        copied.taken = self.taken
        return copied
