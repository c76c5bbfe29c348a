import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mmseg_custom.layers.sync_batch_norm import CPUSyncBatchNorm, sync_batch_norm_on_cpu


def step(norm: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x.requires_grad_()
    out = norm(x)
    (out * weight).sum().backward()
    return out.detach(), x.grad


def worker(rank: int, port: int, path: str) -> None:
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    torch.manual_seed(0)
    x, weight = torch.randn(6, 4, 5, 5) * 3 + 2, torch.randn(6, 4, 5, 5)
    norm = sync_batch_norm_on_cpu(nn.Sequential(nn.SyncBatchNorm(4)))[0]
    half = slice(0, 2) if rank == 0 else slice(2, 6)  # unequal halves
    out, grad = step(norm, x[half].clone(), weight[half])
    dist.all_reduce(norm.weight.grad)
    torch.save((out, grad, norm.state_dict(), norm.weight.grad), f'{path}.{rank}')
    dist.destroy_process_group()


def test_two_processes_equal_one_on_the_whole_batch(tmp_path, free_port):
    mp.start_processes(worker, (free_port, str(tmp_path / 'out')), nprocs=2, start_method='fork')
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


def test_conversion_keeps_parameters_and_names():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.SyncBatchNorm(2)))
    before = dict(model.named_parameters())
    names = list(model.state_dict())
    sync_batch_norm_on_cpu(model)
    assert isinstance(model[1][0], CPUSyncBatchNorm)
    assert list(model.state_dict()) == names
    assert all(p is before[name] for name, p in model.named_parameters())
