"""When frozen blocks are captured, on a simulated GPU: what a graph computes needs a card."""
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_custom.distributed import cuda_graphs
from mmseg_custom.distributed.cuda_graphs import EAGER_RUNS, GraphedBlocks


class Graph:
    """Counts its replays in place of torch's CUDA graph."""

    replays = 0

    def replay(self) -> None:
        Graph.replays += 1

    def pool(self) -> str:
        return 'pool'


@pytest.fixture
def pools(monkeypatch):
    """Memory pools that graphs were captured with."""
    found: list[str | None] = []

    @contextmanager
    def graph(_, pool=None, capture_error_mode='global'):
        assert capture_error_mode == 'thread_local'  # loader threads pin memory meanwhile
        found.append(pool)
        yield

    Graph.replays = 0
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', Graph)
    monkeypatch.setattr(torch.cuda, 'graph', graph)
    with FakeTensorMode():
        yield found


def tokens(batch: int = 2) -> torch.Tensor:
    return torch.empty(batch, 5, 8, device='cuda')


def test_a_shape_is_captured_after_some_runs(pools):
    blocks, runs = GraphedBlocks(), []

    def run(x: torch.Tensor) -> list[torch.Tensor]:
        runs.append(x)
        return [x * 2, x * 3]

    results = [blocks(run, tokens()) for _ in range(EAGER_RUNS + 3)]
    assert len(runs) == EAGER_RUNS + 1 and Graph.replays == 3 and pools == [None]
    assert results[-1][0] is not results[-2][0]  # results outlive the next replay
    for _ in range(EAGER_RUNS + 1):
        blocks(run, tokens(4))
    assert pools == [None, 'pool'] and Graph.replays == 4


def test_shapes_beyond_a_number_are_not_captured(pools, monkeypatch):
    monkeypatch.setattr(cuda_graphs, 'MOST_SHAPES', 2)
    blocks = GraphedBlocks()
    for batch in (1, 2, 3):
        for _ in range(EAGER_RUNS + 1):
            blocks(lambda x: [x], tokens(batch))
    assert len(pools) == 2


def test_a_failing_capture_leaves_launches_and_a_line(pools, monkeypatch, caplog):
    def graph(*_, **__):
        raise RuntimeError('operation not permitted when stream is capturing\nmore')

    monkeypatch.setattr(torch.cuda, 'graph', graph)
    blocks = GraphedBlocks()
    for _ in range(EAGER_RUNS + 3):
        x = tokens()
        assert blocks(lambda x: [x], x)[0] is x
    assert [line for line in caplog.messages if 'cuda_graphs' in line] == [
        'cuda_graphs: the blocks are launched one by one, since capturing failed: operation not '
        'permitted when stream is capturing']
