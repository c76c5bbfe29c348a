"""Checkpoints of runs on a simulated CUDA device: what they hold, and that runs go on from them."""
import pytest
import torch
from helpers.fake_cuda import on_cuda, simulate_ranks
from helpers.fake_runs import prepared, recipe, train
from torch.utils._pytree import tree_map

from mmseg_custom.checkpoint import save, sharded


def on_host(content):
    return tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, content)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['linear probing', 'full tuning'])
def test_one_process_resumes_from_what_it_saved(cuda, tmp_path, name):
    saved = {}
    cuda.setattr(save, 'write_pth', lambda path, content: saved.update(content))
    run = prepared(recipe(name), tmp_path / 'run')
    with on_cuda() as seen:
        runner = train(run, seen)
        runner.save_checkpoint(str(tmp_path), create_symlink=False)
        trained = {n for n, p in runner.model.module.named_parameters() if p.requires_grad}
        assert trained <= saved['state_dict'].keys()

        runner.optimizer.load_state_dict(on_host(saved['optimizer']))
        state = [value for values in runner.optimizer.state.values()
                 for key, value in values.items() if key != 'step']
        assert all(value.device.type == 'cuda' for value in state)
        runner.optimizer.step()


def test_each_rank_saves_its_shards_and_loads_them(cuda, tmp_path):
    run = prepared(recipe('few-shot', 2), tmp_path / 'run', 8)
    with on_cuda() as seen, simulate_ranks(cuda, seen, 8):
        runner = train(run, seen)
        optimizer = runner.optimizer
        tensors, rest = sharded._split(optimizer, runner.model.module)
        shards = [t.to_local() for t in tensors.values() if hasattr(t, 'to_local')]
        assert shards and all(shard.device.type == 'cuda' for shard in shards)
        state = {index: {} for index in optimizer.state_dict()['state']}
        for full, value in tensors.items():
            index, name = full.removeprefix(sharded.OPTIMIZER).split('.')
            state[int(index)][name] = value
        optimizer.load_state_dict({**rest, 'state': state})
        optimizer.step()
