"""How many windows go through the network at once."""
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmseg.utils import get_root_logger

from ...errors import InputError

# More pixels at once are no faster: a window of 504x504 keeps two cores busy, sixteen a GPU.
USEFUL_PIXELS = {'cpu': 504 ** 2, 'cuda': 16 * 504 ** 2}
SHARE_OF_FREE = 0.5  # the rest is for logits, for the data loader, and for whoever else is there


class WindowBatch:
    """The number of windows in a batch: what is asked for, or what memory allows.

    By itself, the first window of a size runs alone, and what it takes is measured; batches of
    that size then take at most half of what is free.

    """

    def __init__(self):
        self._asked: int | None = None
        self._fit: dict[tuple, int] = {}  # by shape: what was measured to fit
        self._most: dict[tuple, int] = {}  # by shape: what is left after one that did not

    def ask(self, number: int | None) -> None:
        """Sets the number, ``test_cfg.window_batch``; None for by itself.

        Raises:
            InputError: If it is no number from 1 on.
        """
        if number is not None and (not isinstance(number, int) or number < 1):
            raise InputError(f'test_cfg.window_batch={number!r}: expected the number of windows '
                             'that go through the network at once, 1 or more; leave it out to '
                             'have it follow from the free memory')
        self._asked = number

    def size(self, shape: tuple[int, int]) -> int:
        """The windows of a shape (H, W) that may run together now."""
        size = self._asked or self._fit.get(shape, 1)
        return min(size, self._most.get(shape, size))

    def halve(self, shape: tuple[int, int]) -> None:
        """After a batch that was too large for the memory."""
        self._most[shape] = max(1, self.size(shape) // 2)
        get_root_logger().warning('the GPU has no memory for so many windows of %dx%d at once: %d '
                                  'from now on', *shape, self._most[shape])

    @contextmanager
    def measured(self, shape: tuple[int, int], device: torch.device) -> Iterator[None]:
        """Around the run of one window; the first of its shape decides the size of batches."""
        if self._asked or shape in self._fit:
            yield
            return
        before = _in_use(device)
        yield
        taken = max(_peak(device) - before, 1)
        useful = USEFUL_PIXELS.get(device.type, USEFUL_PIXELS['cuda']) // (shape[0] * shape[1])
        free = SHARE_OF_FREE * free_bytes(device)
        self._fit[shape] = max(1, min(useful, int(free / taken)))
        get_root_logger().debug('windows of %dx%d: %.1f MiB each, %d at once', *shape,
                                taken / 2**20, self._fit[shape])


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == 'cuda':
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _field('/proc/meminfo', 'MemAvailable')


def _in_use(device: torch.device) -> int:
    if device.type == 'cuda':
        return torch.cuda.memory_allocated(device)
    return _field('/proc/self/status', 'VmRSS')


def _peak(device: torch.device) -> int:
    """The most that was in use so far: at least what the last run took it to."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _field(path: str, name: str) -> int:
    """A line of kilobytes in a file of /proc, as bytes."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) * 1024
    raise OSError(f'{path} has no {name}')
