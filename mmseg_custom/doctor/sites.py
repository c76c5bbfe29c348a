"""Which part of a network a step is in: its embedding, a block near an end of a stretch, the rest.

Sites that are told apart at several depths have the same names there; those between the ends of a
stretch of equal blocks have the length of the stretch in their names.
"""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..distributed.parallelize import read_blocks
from .memory_tracker import MemoryTracker

EMBEDDING, REST = 'embedding', 'rest'


def block_sites(lengths: Sequence[int], edge: int) -> list[str]:
    """Returns the name of each block, by the lengths of the stretches of equal ones.

    Args:
        lengths: Numbers of blocks.
        edge: Blocks at either end of a stretch that have names of their own at any length.
    """
    def name(length: int, i: int) -> str:
        if i < edge:
            return f'block {i}'
        return f'block {i - length}' if i >= length - edge else f'block {i} of {length}'

    return [f'stretch {number}, {name(length, i)}'
            for number, length in enumerate(lengths) for i in range(length)]


@contextmanager
def track_sites(model: nn.Module, tracker: MemoryTracker, sites: Sequence[str]) -> Iterator[None]:
    """Tells the tracker which part of the network a step is in, forward and backward.

    Args:
        model: Segmentor.
        tracker: Tracker of the step.
        sites: Name of each block that is read; none where blocks are not told apart.
    """
    def enter(phase: str, site: str, kind: str) -> None:
        tracker.kind = kind
        tracker.enter_site(phase, site)

    def before_block(i: int, tokens: Tensor) -> None:
        if torch._C._current_graph_task_id() != -1:
            return  # recomputed
        enter('forward', sites[i], 'activations')
        if tokens.requires_grad:  # once its gradient is computed, the block before it is next
            previous = sites[i - 1] if i else EMBEDDING
            tokens.register_hook(lambda _: tracker.enter_site('backward', previous))

    def after_block() -> None:
        if torch._C._current_graph_task_id() == -1:
            tracker.kind = 'head'  # which computes its next prediction

    backbone = model.backbone
    blocks = read_blocks(model) if sites else []
    deferred = blocks[backbone.first_deferred:] if blocks else []
    hooks = [backbone.register_forward_pre_hook(
                 lambda *_: enter('forward', EMBEDDING, 'activations'), prepend=True),
             backbone.register_forward_hook(lambda *_: enter('forward', REST, 'head'))]
    hooks += [block.register_forward_pre_hook(lambda _, inputs, i=i: before_block(i, inputs[0]))
              for i, block in enumerate(blocks)]
    hooks += [block.register_forward_hook(lambda *_: after_block()) for block in deferred]
    tracker.kind = 'head'
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        tracker.kind = 'activations'  # what is recomputed is the backbone's
