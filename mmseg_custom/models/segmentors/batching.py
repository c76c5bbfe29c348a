"""The window batch size: how many windows go through the network at once."""
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ...errors import InputError
from ...host_memory import free_host_memory
from ...logs import MAIN
from ...peak_memory import begin_measurement, measured_peak
from ...units import format_bytes

# More pixels at once are no faster: a window of 504x504 keeps two cores busy, sixteen a GPU.
USEFUL_PIXELS = {'cpu': 504 ** 2, 'cuda': 16 * 504 ** 2}
SHARE_OF_FREE = 0.5  # the rest is for logits, the data loader and other processes


class WindowBatch:
    """Chooses the window batch size: the one asked for, or what memory allows.

    By default the first two windows of a shape run alone, and the memory of the second is measured:
    in the first, cuDNN may try kernels that take all memory there is. Batches of that shape then
    take at most half of the free memory.
    """

    def __init__(self):
        self._asked: int | None = None
        self._begun: set[tuple] = set()  # shapes of which one window has run
        self._measured: dict[tuple, int] = {}  # by shape: what fits by the second window
        self._limit: dict[tuple, int] = {}  # by shape: half of a size that did not fit

    def ask(self, number: int | None) -> None:
        """Sets the size, ``test_cfg.window_batch``; None has it measured.

        Raises:
            InputError: If it is not a number of 1 or more.
        """
        if number is not None and (not isinstance(number, int) or number < 1):
            raise InputError(f'test_cfg.window_batch={number!r}: expected the number of windows '
                             'that go through the network at once, 1 or more; leave it out to '
                             'have it follow from the free memory')
        self._asked = number

    def size(self, shape: tuple[int, int]) -> int:
        """Returns the number of windows of a shape (H, W) that may run together now."""
        size = self._asked or self._measured.get(shape, 1)
        return min(size, self._limit.get(shape, size))

    def batches(self, windows: Mapping[tuple[int, int], int]) -> tuple[int, bool]:
        """Returns how many batches are sure to come, and whether more may follow.

        How many those are is not known before the windows that are measured have run.

        Args:
            windows: Shape -> number of windows that are left.
        """
        total = 0
        for shape, number in windows.items():
            if self._asked or shape in self._measured:
                total += -(-number // self.size(shape))
                continue
            alone = 1 if shape in self._begun else 2
            total += min(number, alone)
            if number > alone:
                return total, True
        return total, False

    def halve(self, shape: tuple[int, int]) -> None:
        """Halves the size after a batch that was too large for the memory."""
        self._limit[shape] = max(1, self.size(shape) // 2)
        logging.getLogger(MAIN).warning('the GPU has no memory for so many windows of %dx%d at '
                                        'once: %d from now on', *shape, self._limit[shape])

    @contextmanager
    def measured(self, shape: tuple[int, int], device: torch.device) -> Iterator[None]:
        """Measures the memory of one window, the second of its shape, as it runs inside."""
        if self._asked or shape in self._measured or shape not in self._begun:
            yield
            self._begun.add(shape)
            return
        before = begin_measurement(device)
        yield
        taken = max(measured_peak(device) - before, 1)
        useful = USEFUL_PIXELS.get(device.type, USEFUL_PIXELS['cuda']) // (shape[0] * shape[1])
        free = SHARE_OF_FREE * free_bytes(device)
        self._measured[shape] = max(1, min(useful, int(free / taken)))
        logging.getLogger(MAIN).debug('windows of %dx%d: %s each, %d at once', *shape,
                                      format_bytes(taken), self._measured[shape])


def free_bytes(device: torch.device) -> int:
    """Returns the bytes that can still be allocated on a device."""
    if device.type == 'cuda':
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_host_memory()
