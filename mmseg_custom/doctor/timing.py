"""Time of an iteration: counted operations over rates that are measured in a few seconds.

    time = sum over kernels of FLOPs / rate of the kernel's largest call
           + bytes that all other operations move / rate of a copy

A kernel is a kind of operation and a dtype: :mod:`.kernels`. It is measured under the settings of
the run. Backward passes count at the rate of the forward pass. Communication is left out: most of
it overlaps with the arithmetic.
"""
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from mmcv import Config
from torch.utils.benchmark import Timer

from ..engine.options import RunOptions
from .kernels import CONVOLUTION, Kernel, KernelCall
from .memory import MemoryEstimate

MIN_SECONDS = 0.25  # of a measurement
MOST_FLOPS = {'cpu': 2e10, 'cuda': 5e12}  # of a call that is measured
COPIED_BYTES = 64 << 20
# Share of float32 in the rate of bfloat16, by the peaks of NVIDIA's A100 and H100 (dense): 312 and
# 989 TFLOP/s in bfloat16, 156 and 495 in TF32, 19.5 and 67 in float32. In int8 and fp8 it is twice
# that of bfloat16.
TF32_SHARE, FLOAT32_SHARE, SHARE_OF_8_BITS = 1 / 2, 1 / 15, 2
GPU_BANDWIDTH = 3e12  # bytes/s, of an H100


def measure_rates(device: str, calls: Iterable[KernelCall], benchmark: bool,
                  deterministic: bool) -> tuple[dict[Kernel, float], float]:
    """Measures the rates of this machine.

    Args:
        device: 'cuda' or 'cpu'.
        calls: A call of each kernel.
        benchmark: Whether cuDNN searches for its fastest convolution, as in the run.
        deterministic: Whether cuDNN may choose deterministic convolutions only.

    Returns:
        (FLOP/s by kernel, bytes/s that a copy reads and writes).
    """
    rates = {}
    # TF32 in convolutions, and float32 in products, are PyTorch's defaults, which runs keep.
    with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark,
                                    deterministic=deterministic), torch.no_grad():
        for call in calls:
            measured = call.shrunk(MOST_FLOPS[device])
            rates[call.kernel] = measured.flops / _seconds(
                partial(measured.run, measured.tensors(device)))
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return rates, 2 * COPIED_BYTES / _seconds(lambda: target.copy_(source))


def rates_of_run(cfg: Config, options: RunOptions, calls: Mapping[Kernel, KernelCall],
                 tflops: float | None) -> tuple[dict[Kernel, float], float] | None:
    """Returns the rates to predict the time of a run by; None if there are none.

    Args:
        cfg: Config of the run.
        options: Options of the run, with the device that it will run on.
        calls: Largest call of each kernel.
        tflops: 10^12 FLOP/s of a GPU in bfloat16, where there is none to measure.

    Raises:
        RuntimeError: Of a GPU that others fill, or that has no such kernel.
    """
    if options.device == 'cpu' or torch.cuda.is_available():
        return measure_rates(
            options.device, calls.values(), deterministic=options.deterministic,
            benchmark=cfg.get('cudnn_benchmark', False) and not options.deterministic)
    return None if tflops is None else assume_rates(tflops, calls)


def assume_rates(tflops: float, kernels: Iterable[Kernel]) -> tuple[dict[Kernel, float], float]:
    """Assumes the rates of a GPU that is not here, from its 10^12 FLOP/s in bfloat16.

    Convolutions of float32 tensors run in TF32, at half of that; their products and attention in
    float32, at a fifteenth; products of 8 bits at twice the rate.

    Returns:
        (FLOP/s by kernel, bytes/s that a copy reads and writes).
    """
    def share(kernel: Kernel) -> float:
        if kernel.dtype.itemsize == 1:
            return SHARE_OF_8_BITS
        if kernel.dtype != torch.float32:
            return 1
        return TF32_SHARE if kernel.kind == CONVOLUTION else FLOAT32_SHARE

    return {kernel: share(kernel) * tflops * 1e12 for kernel in kernels}, GPU_BANDWIDTH


def seconds_of(estimate: MemoryEstimate, rates: Mapping[Kernel, float],
               bandwidth: float) -> float:
    """Computes the seconds of an iteration."""
    fallback = min(rates.values())
    return sum(count / rates.get(kernel, fallback) for kernel, count in estimate.flops.items()) + (
        estimate.moved_bytes / bandwidth)


def _seconds(step: Callable[[], object]) -> float:
    """Returns the seconds of the fastest of several runs."""
    timer = Timer('step()', globals=dict(step=step), num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=MIN_SECONDS).times)
