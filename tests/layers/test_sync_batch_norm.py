"""Batch norm over two processes on the CPU; as a script, this file is one of them."""
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmseg_custom.layers.sync_batch_norm import (
    CPUSyncBatchNorm,
    GPUSyncBatchNorm,
    adapt_sync_batch_norm,
)


def step(norm: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x.requires_grad_()
    out = norm(x)
    (out * weight).sum().backward()
    return out.detach(), x.grad


def train_on_a_part(path: str) -> None:
    """Runs on two ranks: a step of each on its part of the batch."""
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    torch.manual_seed(0)
    x, weight = torch.randn(6, 4, 5, 5) * 3 + 2, torch.randn(6, 4, 5, 5)
    norm = adapt_sync_batch_norm(nn.Sequential(nn.SyncBatchNorm(4)), 'cpu')[0]
    part = slice(0, 2) if rank == 0 else slice(2, 6)  # unequal parts
    out, grad = step(norm, x[part].clone(), weight[part])
    dist.all_reduce(norm.weight.grad)
    torch.save((out, grad, norm.state_dict(), norm.weight.grad), f'{path}.{rank}')
    dist.destroy_process_group()


def test_two_processes_equal_one_on_the_whole_batch(zygote, tmp_path):
    zygote.run(__file__, tmp_path / 'out', ranks=2)
    parts = [torch.load(tmp_path / f'out.{rank}') for rank in (0, 1)]
    torch.manual_seed(0)
    x, weight = torch.randn(6, 4, 5, 5) * 3 + 2, torch.randn(6, 4, 5, 5)
    norm = nn.BatchNorm2d(4)
    out, grad = step(norm, x, weight)
    assert torch.allclose(torch.cat([parts[0][0], parts[1][0]]), out, atol=1e-5)
    assert torch.allclose(torch.cat([parts[0][1], parts[1][1]]), grad, atol=1e-5)
    assert torch.allclose(parts[0][3], norm.weight.grad, atol=1e-4)
    for name, value in norm.state_dict().items():
        assert torch.allclose(parts[1][2][name], value, atol=1e-6), name


@pytest.mark.parametrize('device, kind', [('cpu', CPUSyncBatchNorm), ('cuda', GPUSyncBatchNorm)])
def test_conversion_keeps_parameters_and_names(device, kind):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.SyncBatchNorm(2)))
    before = dict(model.named_parameters())
    names = list(model.state_dict())
    adapt_sync_batch_norm(model, device)
    assert isinstance(model[1][0], kind)
    assert list(model.state_dict()) == names
    assert all(p is before[name] for name, p in model.named_parameters())


if __name__ == '__main__':
    train_on_a_part(sys.argv[1])
