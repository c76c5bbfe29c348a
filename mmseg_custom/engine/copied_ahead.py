"""Training batches on a GPU, each of which is copied while the one before is computed.

    copy stream       | batch 2 |          | batch 3 |
    compute stream    |   iteration 1      |   iteration 2      | ...

The loader's tensors are in pinned memory (:mod:`..compat.data_containers`), so that the host only
asks for a copy and goes on. The compute stream waits for the copy of its batch, and no longer.
"""
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from .copies import DeviceCopy


def copied_ahead(loader: DataLoader, device: str) -> 'DataLoader | CopiedAhead':
    """Returns a loader of the same batches on a device: the loader itself on 'cpu'."""
    return CopiedAhead(loader) if device == 'cuda' else loader


class CopiedAhead:
    """A loader whose next batch is being copied to the current GPU when one is returned.

    The memory of one more batch is in use. A position in the data is that of the batches that were
    returned: whoever resumes a run counts iterations, not what a loader has read. A batch that
    cannot be loaded is an error when it is asked for, one batch later than it is found.

    Args:
        loader: Loader whose batches are in pinned memory; from other memory the host waits.
    """

    def __init__(self, loader: DataLoader):
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == 'loader':  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return _Copies(iter(self.loader))


class _Copies(Iterator):
    """Iterates over batches, and is one copy ahead.

    Args:
        batches: Batches on the CPU, in mmcv's containers.
    """

    def __init__(self, batches: Iterator[Any]):
        self._batches, self._stream = batches, torch.cuda.Stream()
        self._ahead: DeviceCopy | Exception | None = None

    def __next__(self) -> Any:
        """Returns the next batch, which the current stream may use at once.

        Raises:
            StopIteration: After the last batch.
            Exception: If the batch could not be loaded; the loader's error.
        """
        arriving = self._load() if self._ahead is None else self._ahead
        if isinstance(arriving, Exception):
            raise arriving
        self._ahead = self._load()
        return arriving.arrive()

    def _load(self) -> DeviceCopy | Exception:
        """Loads a batch and starts its copy; an error is kept until the batch is asked for."""
        try:
            batch = next(self._batches)
        except Exception as error:  # StopIteration too
            return error
        return DeviceCopy(batch, self._stream)
