"""What a traced step is made of, and the step of a deep network from those of shallow ones.

At a given site of a step (in one of the first blocks, in one of the last, in the heads, in the
optimizer) each additional block adds the same number of bytes, and the same number of operations.
"""
from collections import Counter
from dataclasses import dataclass

from .kernels import Kernel, KernelCall
from .memory_tracker import AllocationSite


@dataclass
class StepTrace:
    """What the tracker recorded of a step.

    Attributes:
        peaks: Bytes by kind, for each allocation site.
        offloaded: The same with FSDP2's shards in the host's memory.
        counts: Bytes of weights, gradients and optimizer state.
        flops: Floating-point operations by kernel.
        calls: Largest call of each kernel.
        moved_bytes: Bytes that other operations read and write.
    """
    peaks: dict[AllocationSite, dict[str, int]]
    offloaded: dict[AllocationSite, dict[str, int]]
    counts: Counter[str]
    flops: dict[Kernel, int]
    calls: dict[Kernel, KernelCall]
    moved_bytes: int


def extrapolate(least: StepTrace, deeper: list[StepTrace], factors: list[int]) -> StepTrace:
    """Returns the step of a network that has several times as many additional blocks.

    Args:
        least: Step that the blocks are added to.
        deeper: Steps with additional blocks, of one kind each.
        factors: Additional blocks of the network, as a multiple of those of each of ``deeper``.
    """
    def value(a: int, others: list[int]) -> int:
        return a + sum((b - a) * factor for b, factor in zip(others, factors))

    def line(a: dict, others: list) -> Counter:
        return Counter({key: value(a[key], [b[key] for b in others])
                        for key in a if all(key in b for b in others)})

    def lines(a: dict[AllocationSite, dict],
              others: list[dict[AllocationSite, dict]]) -> dict[AllocationSite, dict]:
        return {site: dict(line(a[site], [b[site] for b in others]))
                for site in a if all(site in b for b in others)}

    return StepTrace(
        lines(least.peaks, [each.peaks for each in deeper]),
        lines(least.offloaded, [each.offloaded for each in deeper]),
        line(least.counts, [each.counts for each in deeper]),
        line(least.flops, [each.flops for each in deeper]), deeper[0].calls,
        value(least.moved_bytes, [each.moved_bytes for each in deeper]))
