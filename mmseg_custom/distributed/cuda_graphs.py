"""CUDA graphs of frozen blocks: all their kernels in one launch.

A launch takes the host some microseconds, more than a kernel of InternViT-300M on a few crops
takes the GPU. A graph is launched once for all of them, and waits for nothing of the host.

B batch, N tokens, D width.
"""
from collections import Counter

import torch
from mmseg.utils import get_root_logger
from torch import Tensor

from ..models.fixed_batches import Blocks

EAGER_RUNS = 3  # of a shape before it is captured: kernels have been chosen, and compiled, by then
MOST_SHAPES = 8  # that are captured; each graph keeps its inputs and outputs


class GraphedBlocks:
    """Runs frozen blocks as CUDA graphs, one for each shape of their tokens.

    The graphs share their memory, that of the largest, because none runs before the results of the
    one before have been copied. Weights must stay where they are: shards that are gathered anew
    cannot be captured. Where capturing fails, one line of the log says why, and the blocks go on
    as they are.
    """

    def __init__(self) -> None:
        self._runs: Counter[tuple] = Counter()  # by shape
        self._graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]] = {}
        self._gave_up = False

    def __call__(self, run: Blocks, tokens: Tensor) -> list[Tensor]:
        """Runs the blocks on tokens (B, N, D), without autograd.

        Args:
            run: Function that runs them one by one.
            tokens: Tokens before the first block.
        """
        key = (tuple(tokens.shape), tokens.dtype)
        if key not in self._graphs and not self._captures(key, tokens):
            return run(tokens)
        if key not in self._graphs:
            try:
                self._graphs[key] = self._capture(run, tokens)
            except RuntimeError as error:
                self._gave_up = True
                get_root_logger().warning('cuda_graphs: the blocks are launched one by one, since '
                                          'capturing failed: %s', str(error).splitlines()[0])
                return run(tokens)
            get_root_logger().info('cuda_graphs: captured the frozen blocks for tokens %s', key[0])
        graph, entry, outs = self._graphs[key]
        entry.copy_(tokens)
        graph.replay()
        return [out.clone() for out in outs]  # The next replay overwrites them.

    def _captures(self, key: tuple, tokens: Tensor) -> bool:
        """Counts a run of a shape, and returns whether it is to be captured now."""
        if self._gave_up or not tokens.is_cuda or len(self._graphs) >= MOST_SHAPES:
            return False
        self._runs[key] += 1
        return self._runs[key] > EAGER_RUNS

    def _capture(self, run: Blocks, tokens: Tensor
                 ) -> tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]:
        """Returns a graph of the blocks, the tensor that it reads, and those that it writes."""
        entry, graph = tokens.clone(), torch.cuda.CUDAGraph()
        pool = next((each.pool() for each, _, _ in self._graphs.values()), None)
        # Threads that copy batches ahead and pin memory go on meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode='thread_local'):
            outs = run(entry)
        return graph, entry, outs
