"""The step of a deep network from the steps of two shallow ones.

The blocks of a vision transformer are equal. At a given place of a step - in one of the first
blocks, in one of the last, in the heads, in the optimizer - what is there grows by the same amount
with each block that is put in between, and so do the operations. In between, memory only rises or
only falls, so its peak is at such a place. Two depths give the line, and the line any other depth.
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
from ..models.backbones.intern_vit import InternViT6B
from .memory_tracker import AllocationSite, MemoryTracker

EDGE = 2  # blocks at either end that are places of their own; more where FSDP2 prefetches more
# Numbers of places that are no block at an end; a depth is added to the last.
EMBEDDING, REST, BETWEEN = -1000, 1000, 10_000


@dataclass
class Step:
    """What the tracker says of a step.

    Attributes:
        peaks: AllocationSite -> bytes by kind.
        offloaded: The same, with what FSDP2 offloads in the host's memory.
        counts: Bytes of states.
        flops: By dtype.
        moved_bytes: Of other operations.
    """
    peaks: dict[AllocationSite, dict[str, int]]
    offloaded: dict[AllocationSite, dict[str, int]]
    counts: dict[str, int]
    flops: dict[torch.dtype, int]
    moved_bytes: int


def depths(cfg: Config, engine: Engine, edge: int) -> tuple[int, ...]:
    """Blocks that are read: two numbers to follow a step with, and the network's own; or just that.

    The differences are multiples of ``engine.checkpoint_every``.
    """
    read = max(_outs(cfg)) + 1
    few = 2 * edge + len(_outs(cfg)) - 1
    few += (read - few) % engine.checkpoint_every
    more = few + engine.checkpoint_every
    return (few, more, read) if more < read else (read,)


def cut(cfg: Config, read: int, edge: int) -> Config:
    """A config of ``read`` blocks that are read; those that are not stay.

    The last map stays that of the last block, the others come right after the first ``edge``.
    """
    cfg = copy.deepcopy(cfg)  # Config.copy shares what is inside
    outs = _outs(cfg)
    backbone = cfg.model.backbone
    if read == max(outs) + 1:
        return cfg
    backbone.depth = _depth(cfg) - max(outs) - 1 + read
    backbone.out_indices = [*range(edge, edge + len(outs) - 1), read - 1]
    if not isinstance(backbone.get('use_flash_attn', True), bool):
        backbone.use_flash_attn = backbone.use_flash_attn[:backbone.depth]
    return cfg


def extended(few: Step, more: Step, times: float) -> Step:
    """The step of a network that is ``times`` as much deeper than ``few`` as ``more`` is."""
    def line(a: dict, b: dict) -> Counter:
        return Counter({key: round(a[key] + (b[key] - a[key]) * times) for key in a if key in b})

    def lines(a: dict[AllocationSite, dict],
              b: dict[AllocationSite, dict]) -> dict[AllocationSite, dict]:
        return {place: dict(line(a[place], b[place])) for place in a if place in b}

    return Step(lines(few.peaks, more.peaks), lines(few.offloaded, more.offloaded),
                line(few.counts, more.counts), line(few.flops, more.flops),
                round(few.moved_bytes + (more.moved_bytes - few.moved_bytes) * times))


@contextmanager
def watched(model: nn.Module, tracker: MemoryTracker, edge: int) -> Iterator[None]:
    """Tells the tracker where a step is: in which part of the network, forward and backward.

    The first ``edge`` blocks have the numbers 0, 1 ..., the last ones -1, -2 ...; those between
    have one that tells the depth, so that it is none that two depths share.
    """
    def enter(phase: str, number: int, kind: str) -> None:
        tracker.where = kind
        tracker.at(phase, number)

    def place(i: int) -> int:
        from_end = i - len(blocks)
        return i if i < edge else from_end if from_end >= -edge else BETWEEN + len(blocks)

    def before(i: int, tokens: Tensor) -> None:
        if torch._C._current_graph_task_id() != -1:
            return  # recomputed
        enter('forward', place(i), 'activations')
        if tokens.requires_grad:  # its gradient is there: the block before it is next
            number = place(i - 1) if i else EMBEDDING
            tokens.register_hook(lambda _: tracker.at('backward', number))

    backbone = model.backbone
    blocks = read_blocks(model) if isinstance(backbone, InternViT6B) else []
    hooks = [backbone.register_forward_pre_hook(
                 lambda *_: enter('forward', EMBEDDING, 'activations'), prepend=True),
             backbone.register_forward_hook(lambda *_: enter('forward', REST, 'head'))]
    hooks += [block.register_forward_pre_hook(lambda _, inputs, i=i: before(i, inputs[0]))
              for i, block in enumerate(blocks)]
    tracker.where = 'head'
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        tracker.where = 'activations'  # what is recomputed is the backbone's


def _depth(cfg: Config) -> int:
    return cfg.model.backbone.get('depth', 48)


def _outs(cfg: Config) -> list[int]:
    return list(cfg.model.backbone.get('out_indices', (7, 11, 15, 23)))
