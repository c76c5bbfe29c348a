"""Computes the memory of a deep network's step from the steps of two shallow ones.

The blocks of a vision transformer are equal. At a given site of a step (in one of the first blocks,
in one of the last, in the heads, in the optimizer) each additional block in between adds the same
number of bytes, and the same number of operations. Between these sites memory only rises or only
falls, so that the peak is at one of them. Two depths therefore determine any other.
"""
import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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


def traced_depths(cfg: Config, engine: Engine, edge: int) -> tuple[int, int] | None:
    """Returns two numbers of read blocks to trace; None for a network that is no deeper.

    Their difference is ``engine.checkpoint_every``, and so is a divisor of that to the network's.
    """
    shallow = 2 * edge + len(_out_indices(cfg)) - 1
    shallow += (num_read(cfg) - shallow) % engine.checkpoint_every
    deeper = shallow + engine.checkpoint_every
    return (shallow, deeper) if deeper < num_read(cfg) else None


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


def extrapolate(shallow: StepTrace, deeper: StepTrace, factor: float) -> StepTrace:
    """Returns the step of a network that has ``factor`` times as many additional blocks.

    Args:
        shallow: Step that the blocks are added to.
        deeper: Step with additional blocks.
        factor: Additional blocks of the network, as a multiple of those of ``deeper``.
    """
    def line(a: dict, b: dict) -> Counter:
        return Counter({key: round(a[key] + (b[key] - a[key]) * factor) for key in a if key in b})

    def lines(a: dict[AllocationSite, dict],
              b: dict[AllocationSite, dict]) -> dict[AllocationSite, dict]:
        return {site: dict(line(a[site], b[site])) for site in a if site in b}

    return StepTrace(
        lines(shallow.peaks, deeper.peaks), lines(shallow.offloaded, deeper.offloaded),
        line(shallow.counts, deeper.counts), line(shallow.flops, deeper.flops), deeper.calls,
        round(shallow.moved_bytes + (deeper.moved_bytes - shallow.moved_bytes) * factor))


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
