"""Computes the memory of a deep network's step from the steps of shallow ones.

The blocks of a vision transformer are equal. At a given site of a step (in one of the first blocks,
in one of the last, in the heads, in the optimizer) each additional block in between adds the same
number of bytes, and the same number of operations. Between these sites memory only rises or only
falls, so that the peak is at one of them. Two depths therefore determine any other.

Where the first blocks are recomputed and those behind are not, a block of either kind adds bytes of
its own, and three depths determine all others. In the backward pass the blocks behind come first:
what they have kept is freed before the first ones are recomputed, so that the peak is still at an
end.
"""
import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from mmcv import Config
from torch import Tensor, nn

from ..distributed.options import Engine
from ..distributed.parallelize import read_blocks
from ..engine.config import backbone_option
from ..models.backbones.intern_vit import InternViT6B
from .kernels import Kernel, KernelCall
from .memory_tracker import AllocationSite, MemoryTracker

EDGE = 2  # blocks at either end that are sites of their own; more where FSDP2 prefetches more
# Numbers of sites that are no block at an end; the depth is added to the last of them.
EMBEDDING, REST, BETWEEN = -1000, 1000, 10_000


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


class Depth(NamedTuple):
    """Numbers of blocks that are read.

    Attributes:
        first: Blocks of which the engine recomputes all or every k-th, or none.
        behind: Blocks behind them, which keep their activations.
    """
    first: int
    behind: int = 0


def depth_of(cfg: Config, engine: Engine) -> Depth:
    """Returns the depth of a network whose blocks are recomputed as the engine says."""
    read = num_read(cfg)
    first = read if engine.checkpoint_blocks is None else min(engine.checkpoint_blocks, read)
    return Depth(first, read - first)


def traced_depths(cfg: Config, engine: Engine, edge: int) -> tuple[Depth, ...] | None:
    """Returns the depths to trace; None for a network that is hardly deeper.

    The first is the least; each of the others has additional blocks of one kind, where the network
    has both. Those of the first kind are ``engine.every_kth``, and so is a divisor of that to the
    network's.
    """
    depth, every = depth_of(cfg, engine), engine.every_kth
    maps = len(_out_indices(cfg)) - 1  # those of inner blocks come right after the edge
    if not depth.first:
        least = Depth(0, 2 * edge + maps)
    else:
        first = edge + maps + (0 if depth.behind else edge)
        least = Depth(first + (depth.first - first) % every, edge if depth.behind else 0)
    deeper = [least._replace(first=least.first + every)] * bool(depth.first)
    deeper += [least._replace(behind=least.behind + 1)] * bool(depth.behind)
    if any(0 < blocks < edge for blocks in depth) or all(
            sum(each) >= sum(depth) for each in deeper):
        return None
    return (least, *deeper)


def factors(depths: tuple[Depth, ...], depth: Depth) -> list[int]:
    """Returns how often a depth has the additional blocks of each of ``traced_depths``."""
    least, *deeper = depths
    return [(depth[kind] - least[kind]) // (each[kind] - least[kind])
            for each in deeper for kind in (0, 1) if each[kind] > least[kind]]


def num_read(cfg: Config) -> int:
    """Returns the number of blocks up to the last whose output is read."""
    return max(_out_indices(cfg)) + 1


def with_depth(cfg: Config, read: int, edge: int) -> Config:
    """Returns a config with ``read`` blocks that are read, and as many unread ones as before.

    The last feature map remains that of the last block read; the others come right after the first
    ``edge`` blocks.
    """
    cfg = copy.deepcopy(cfg)  # Config.copy shares what is inside
    backbone, indices = cfg.model.backbone, _out_indices(cfg)
    backbone.depth = backbone_option(backbone, 'depth') - num_read(cfg) + read
    backbone.out_indices = [*range(edge, edge + len(indices) - 1), read - 1]
    if not isinstance(backbone.get('use_flash_attn', True), bool):
        backbone.use_flash_attn = backbone.use_flash_attn[:backbone.depth]
    return cfg


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


@contextmanager
def track_sites(model: nn.Module, tracker: MemoryTracker, edge: int) -> Iterator[None]:
    """Tells the tracker which part of the network a step is in, forward and backward.

    The first ``edge`` blocks have the numbers 0, 1 ..., the last ones -1, -2 ...; those in between
    share one that depends on the depth, so that two depths have no such site in common.
    """
    def enter(phase: str, number: int, kind: str) -> None:
        tracker.kind = kind
        tracker.enter_site(phase, number)

    def number(i: int) -> int:
        from_end = i - len(blocks)
        return i if i < edge else from_end if from_end >= -edge else BETWEEN + len(blocks)

    def before_block(i: int, tokens: Tensor) -> None:
        if torch._C._current_graph_task_id() != -1:
            return  # recomputed
        enter('forward', number(i), 'activations')
        if tokens.requires_grad:  # once its gradient is computed, the block before it is next
            previous = number(i - 1) if i else EMBEDDING
            tokens.register_hook(lambda _: tracker.enter_site('backward', previous))

    backbone = model.backbone
    blocks = read_blocks(model) if isinstance(backbone, InternViT6B) else []
    hooks = [backbone.register_forward_pre_hook(
                 lambda *_: enter('forward', EMBEDDING, 'activations'), prepend=True),
             backbone.register_forward_hook(lambda *_: enter('forward', REST, 'head'))]
    hooks += [block.register_forward_pre_hook(lambda _, inputs, i=i: before_block(i, inputs[0]))
              for i, block in enumerate(blocks)]
    tracker.kind = 'head'
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        tracker.kind = 'activations'  # what is recomputed is the backbone's


def _out_indices(cfg: Config) -> list[int]:
    return list(backbone_option(cfg.model.backbone, 'out_indices'))
