"""Peak memory of this process, and of a part of its work.

The system and PyTorch each keep one peak, which can be reset but not set back. So that measuring a
part does not lose the peak of the process, what stood there before each reset is remembered here;
whoever reports the peak of the process asks :func:`process_peak`.
"""
import resource
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch

_earlier: Counter[str] = Counter()  # peaks before the last reset, in bytes, by device
_STATUS, _REFS = Path('/proc/self/status'), Path('/proc/self/clear_refs')


def process_peak(device: str | torch.device) -> int:
    """Returns the most bytes that were in use at once since the process began.

    On the CPU that is resident memory, on a GPU (default: the current one) the memory of PyTorch's
    tensors.
    """
    device = torch.device(device)
    return max(_earlier[_key(device)], _peak(device))


def start_anew() -> None:
    """Forgets the peaks so far, where a process begins another run."""
    _earlier.clear()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    _reset_resident()


def begin_measurement(device: torch.device) -> int:
    """Begins to measure what follows; returns the bytes that are in use now."""
    _earlier[_key(device)] = process_peak(device)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    _reset_resident()
    return _status('VmRSS')


def measured_peak(device: torch.device) -> int:
    """Returns the most bytes that were in use since the last measurement began, or more.

    It may be more on the CPU where the system does not let its peak be reset.
    """
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        return _status('VmHWM')
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset_resident() -> None:
    """Resets the peak of the resident memory, where the system lets it be reset."""
    with suppress(OSError):  # then the peak is at least that of the process so far
        _REFS.write_text('5')  # resets VmHWM


def _status(name: str) -> int:
    """Reads a line of kilobytes from the status of this process, as bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) * 1024
    raise OSError(f'{_STATUS} has no {name}')


def _key(device: torch.device) -> str:
    if device.type == 'cuda' and device.index is None:
        return f'cuda:{torch.cuda.current_device()}'
    return str(device)
