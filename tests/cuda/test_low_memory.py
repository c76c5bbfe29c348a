"""LowMemoryAdamW on a simulated CUDA device: in one process and on shards, and from its state.

The step runs as it is before it is compiled, so that its memory is not that of a GPU. 8-bit moments
are left out: the operations of torchao's tensor type make tensors where no simulation is active.
"""
import pytest
import torch
from helpers.fake_cuda import local, on_cuda, simulate_ranks
from helpers.fake_runs import prepared, recipe, train
from mmcv.runner import Hook
from torch.utils._pytree import tree_map

pytest.importorskip('torchao')


class LastIterations(Hook):
    """Collects the host waits between the first iteration and the end of the run."""

    def __init__(self, seen):
        self.seen, self.waits = seen, None

    def before_train_iter(self, runner):
        if runner.iter == 1:
            self.seen.host_waits.clear()

    def after_train_iter(self, runner):
        self.waits = list(self.seen.host_waits)


def moments(optimizer):
    """All moments; of sharded ones, this process's parts."""
    return [local(value) for values in optimizer.state.values()
            for name, value in values.items() if name != 'step']


@pytest.mark.parametrize('ranks', [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_step_waits_for_nothing(cuda, tmp_path, ranks):
    cfg = recipe('few-shot', 2, optimizer__type='LowMemoryAdamW', optimizer__state='bf16',
                 log_config__interval=10)
    run = prepared(cfg, tmp_path / 'run', ranks)
    with on_cuda() as seen, simulate_ranks(cuda, seen, ranks), (
            torch.compiler.set_stance('force_eager')):
        iterations = LastIterations(seen)
        runner = train(run, seen, [iterations])
        assert iterations.waits == []
        optimizer = runner.optimizer
        found = moments(optimizer)
        assert all(moment.device.type == 'cuda' for moment in found)
        assert {moment.dtype for moment in found} == {torch.bfloat16, torch.float32}
        if ranks == 1:
            optimizer.load_state_dict(tree_map(
                lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, optimizer.state_dict()))
            assert all(moment.device.type == 'cuda' for moment in moments(optimizer))
            optimizer.step()
