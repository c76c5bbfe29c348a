"""Time of an iteration: counted operations over rates that are measured in a second or two.

    time = sum over dtypes of FLOPs / rate of a matrix product of the MLP's shape
           + bytes that all other operations move / rate of a copy

Communication is left out: most of it overlaps with the arithmetic.
"""
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.benchmark import Timer

from .memory import MemoryEstimate

MIN_SECONDS = 0.25  # of a measurement
COPIED_BYTES = 64 << 20


def measure_rates(device: str, width: int, tokens: int,
                  dtypes: list[torch.dtype]) -> tuple[dict[torch.dtype, float], float]:
    """Measures the rates of this machine.

    Args:
        device: 'cuda' or 'cpu'.
        width: Width D of the backbone.
        tokens: Tokens of a batch.
        dtypes: Dtypes of the matrix products.

    Returns:
        (FLOP/s by dtype, bytes/s that a copy reads and writes).
    """
    rates = {}
    for dtype in dtypes:
        x = torch.randn(tokens, width, device=device).to(dtype)
        weight = torch.randn(4 * width, width, device=device).to(dtype)
        seconds = _seconds(partial(F.linear, x, weight))
        rates[dtype] = 2 * tokens * width * 4 * width / seconds
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return rates, 2 * COPIED_BYTES / _seconds(lambda: target.copy_(source))


def seconds_of(estimate: MemoryEstimate, rates: dict[torch.dtype, float],
               bandwidth: float) -> float:
    """Computes the seconds of an iteration."""
    fallback = min(rates.values())
    return sum(count / rates.get(dtype, fallback) for dtype, count in estimate.flops.items()) + (
        estimate.moved_bytes / bandwidth)


def _seconds(step: Callable[[], object]) -> float:
    """Returns the seconds of the fastest of several runs."""
    timer = Timer('step()', globals=dict(step=step), num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=MIN_SECONDS).times)
