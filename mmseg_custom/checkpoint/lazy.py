"""Tensors of files that are read when they are needed."""
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from .files import release_pages


@dataclass
class LazyStateDict:
    """Tensors of a file (or of two that belong together) under the names of a model, unread.

    Attributes:
        path: Of the file, for messages.
        parts: Name -> the tensors that make it up, joined along the first axis if they are three.
        mapped: Names whose tensors are views of a mapped file.
        unknown: Names in the file that belong to the network but that no model has.
        dtypes: Name -> dtype, of tensors that are to be rounded to it first.
    """
    path: str
    parts: dict[str, tuple[Tensor, ...]]
    mapped: set[str]
    unknown: list[str] = field(default_factory=list)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        parts = self.parts[name]
        if len(parts) == 1:
            return tuple(parts[0].shape)
        return (sum(len(part) for part in parts), *parts[0].shape[1:])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """All names and shapes."""
        return {name: self.shape(name) for name in self.parts}

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor."""
        return self.dtypes.get(name, self.parts[name][0].dtype)

    def tensor(self, name: str) -> Tensor:
        """A tensor: a view of the file, or a new one if it was joined or rounded."""
        parts = self.parts[name]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(self.dtype(name))

    def release(self, name: str) -> None:
        """Lets go of the memory of a tensor that was read and copied."""
        if name in self.mapped:
            for part in self.parts[name]:
                release_pages(part)

    def holds(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor is the file's own view, not a copy."""
        return tensor.data_ptr() == self.parts[name][0].data_ptr()


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is made when it is written.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
        make: Makes it, on the CPU.
        done: Is called once it is written.
    """
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]
    done: Callable[[], object] = lambda: None

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def bytes(self) -> Tensor:
        """Makes it: (nbytes,) uint8.

        Raises:
            ValueError: If it is not what was announced.
        """
        tensor = self.make()
        if tuple(tensor.shape) != self.shape or tensor.dtype != self.dtype:
            raise ValueError(f'{tuple(tensor.shape)} {tensor.dtype} was made where {self.shape} '
                             f'{self.dtype} was announced')
        return tensor.contiguous().flatten().view(torch.uint8)
