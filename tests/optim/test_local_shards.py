"""Steps on shards against steps on sharded tensors, bit for bit, in two processes."""
import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mmseg_custom.optim import local_shards
from mmseg_custom.optim.local_shards import take_step

OPTIMIZERS = {
    'AdamW': lambda groups: torch.optim.AdamW(groups, lr=0.1),
    'AdamW, foreach': lambda groups: torch.optim.AdamW(groups, lr=0.1, foreach=True),
    'AMSGrad': lambda groups: torch.optim.AdamW(groups, lr=0.1, amsgrad=True),
    'SGD': lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.1),
    'RMSprop': lambda groups: torch.optim.RMSprop(groups, lr=0.1)}
SHAPES = [(5, 3), (1, 4), (7,), (4, 2, 2)]  # one row leaves the second process nothing


def parameters(mesh) -> list[nn.Parameter]:
    """Sharded parameters, and one that is not."""
    torch.manual_seed(0)
    whole = [torch.randn(shape) for shape in SHAPES]
    return [nn.Parameter(distribute_tensor(x, mesh, [Shard(0)])) for x in whole] + [
        nn.Parameter(torch.randn(3))]


def steps(name: str, mesh, step) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """Takes three steps; the first parameter gets its gradient after the first."""
    found = parameters(mesh)
    optimizer = OPTIMIZERS[name]([dict(params=found[:2]), dict(params=found[2:4], lr=0.01),
                                  dict(params=found[4:])])
    for number in range(3):
        torch.manual_seed(number)
        for i, p in enumerate(found):
            gradient = torch.randn(p.shape)
            if i or number:
                p.grad = (distribute_tensor(gradient, mesh, [Shard(0)])
                          if isinstance(p, DTensor) else gradient)
        if number == 2:  # from its own state dict
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        step(optimizer)
    return optimizer, found


def whole(value):
    return value.full_tensor() if isinstance(value, DTensor) else value


def compare() -> None:
    dist.init_process_group('gloo')
    mesh = init_device_mesh('cpu', (2,))
    for name in OPTIMIZERS:
        (ours, mine), (theirs, reference) = (
            steps(name, mesh, step) for step in (take_step, lambda optimizer: optimizer.step()))
        assert [id(p) for group in ours.param_groups for p in group['params']] == [
            id(p) for p in mine]
        for p, q in zip(mine, reference):
            assert torch.equal(whole(p), whole(q)) and p.grad is not None
            assert ours.state[p].keys() == theirs.state[q].keys()
            for key, value in ours.state[p].items():
                assert type(value) is type(theirs.state[q][key]), (name, key)
                assert torch.equal(whole(value), whole(theirs.state[q][key])), (name, key)
        assert len(ours.state) == len(mine)
    dist.destroy_process_group()


def test_steps_on_shards_have_the_same_bits(zygote, tmp_path):
    zygote.run(__file__, ranks=2)


def test_an_optimizer_that_is_not_known_to_be_elementwise_keeps_sharded_tensors(monkeypatch):
    class Own(torch.optim.AdamW):
        pass

    monkeypatch.setattr(local_shards, '_on_shards', lambda *_: pytest.fail('it did not'))
    take_step(Own([nn.Parameter(torch.ones(2))]))


if __name__ == '__main__':
    compare()
