"""What the simulated device notices, and what it refuses."""
import pytest
import torch
import torch.distributed as dist
from helpers.commands import ROOT
from helpers.fake_cuda import on_cuda, simulate_ranks
from torch.nn import functional as F

WAITS = {
    'item': lambda x: x.sum().item(),
    'float': lambda x: float(x.sum()),
    'bool': lambda x: bool(x.any()),
    'if': lambda x: 1 if x.sum() > 0 else 2,
    'tolist': lambda x: x.tolist(),
    'cpu': lambda x: x.cpu(),
    'to': lambda x: x.to('cpu'),
    'numpy': lambda x: x.cpu().numpy(),
    'nonzero': lambda x: x.nonzero(),
    'mask': lambda x: x[x[:, 0] > 0],
    'assignment to a mask': lambda x: x.__setitem__(x > 0, x.flatten()),
    'indices of the host': lambda x: x[torch.tensor([0, 1])],
    'a list of indices': lambda x: x[[0, 1]],
    'assignment to indices of the host': lambda x: x.__setitem__(torch.tensor([0, 1]), x[:2]),
    'synchronize': lambda x: torch.cuda.synchronize(),
    'synchronize a stream': lambda x: torch.cuda.current_stream().synchronize(),
    'empty the cache': lambda x: torch.cuda.empty_cache(),
    'from the host': lambda x: torch.ones(3).to('cuda'),
    'new tensor': lambda x: x.new_tensor([1., 2.]),
    'a tensor of numbers': lambda x: torch.tensor([1, 2], device='cuda'),
    'copy': lambda x: x.copy_(torch.ones(4, 3)),
}
FREE = {
    'arithmetic': lambda x: (x * 2 + 1).clamp(0).softmax(1).argmax(1),
    'from pinned memory': lambda x: torch.ones(3).to('cuda', non_blocking=True),
    'made there': lambda x: torch.zeros(3, device='cuda') + torch.arange(3, device='cuda'),
    'numbers of the host': lambda x: torch.ones(3).sum().item(),
    'a dtype': lambda x: x.bfloat16().to(torch.float32),
    'a number for a mask': lambda x: x.__setitem__(x > 0, 0.),
    'indices of the device': lambda x: x[torch.zeros(2, dtype=torch.long, device='cuda')],
    'a number of the host': lambda x: x * torch.ones(()),
}
MIXED = {
    'sum': lambda x: x + torch.ones(3),
    'convolution': lambda x: F.conv2d(x[None, None], torch.ones(1, 1, 3, 3)),
    'batch norm': lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3), training=True),
    'evaluated batch norm': lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3)),
    'attention': lambda x: F.scaled_dot_product_attention(
        x.bfloat16(), torch.ones(4, 3).bfloat16(), x.bfloat16()),
    'indices': lambda x: x.index_add_(0, torch.zeros(2).long(), x[:2]),
    'values': lambda x: x.__setitem__(x > 0, torch.ones(12)),
}


@pytest.mark.parametrize('name', WAITS)
def test_host_waits_are_noticed(name):
    with on_cuda() as seen:
        WAITS[name](torch.ones(4, 3, device='cuda'))
    assert len(seen.host_waits) == 1 and 'test_simulation.py' in seen.host_waits[0]


@pytest.mark.parametrize('folder', [ROOT / '.venv/lib/site-packages', '/opt/site-packages'])
def test_a_wait_of_a_library_is_told_by_the_line_that_calls_it(folder):
    """Wherever it is installed."""
    code = compile('def read(x): return x.sum().item()', f'{folder}/library.py', 'exec')
    exec(code, library := {})
    with on_cuda() as seen:
        library['read'](torch.ones(4, 3, device='cuda'))
    assert 'test_simulation.py:test_a_wait_of_a_library' in seen.host_waits[0]


@pytest.mark.parametrize('name', FREE)
def test_other_operations_wait_for_nothing(name):
    with on_cuda() as seen:
        FREE[name](torch.ones(4, 3, device='cuda'))
    assert not seen.host_waits


@pytest.mark.parametrize('name', MIXED)
def test_devices_do_not_mix(name):
    with on_cuda(), pytest.raises(RuntimeError, match='two different devices, cpu and cuda'):
        MIXED[name](torch.ones(4, 3, device='cuda'))


def test_what_is_being_copied_is_not_read_too_early(cuda):
    with on_cuda() as seen:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            copy = torch.ones(3).pin_memory().to('cuda', non_blocking=True)
            copied = stream.record_event()
        with pytest.raises(RuntimeError, match='reads too early what is being copied'):
            copy + 1
        torch.cuda.current_stream().wait_event(copied)
        copy + 1
        torch.ones(3).to('cuda', non_blocking=True)
        assert seen.copies == [(True, False), (False, True)] and len(seen.unpinned) == 1


def test_operators_that_reach_the_device_are_counted():
    with on_cuda() as seen:
        x = torch.zeros(2, 3, device='cuda')
        seen.launches.clear()
        (x.view(3, 2).T[:1].contiguous() + 1).sum()
        torch.ones(3) + 1
        assert seen.launches.total() == 3  # a copy, a sum, a reduction


def test_nccl_takes_no_tensors_of_the_host(cuda):
    with on_cuda() as seen, simulate_ranks(cuda, seen, 4):
        dist.all_reduce(torch.ones(3, device='cuda'))
        dist.all_reduce(torch.ones(3), group=dist.new_group(backend='gloo'))
        assert seen.collectives == ['c10d.allreduce_.default']
        with pytest.raises(RuntimeError, match='a tensor on cpu'):
            dist.all_reduce(torch.ones(3))


def test_gradients_are_on_the_device():
    with on_cuda():
        q = torch.ones(2, 4, 9, 64, device='cuda', dtype=torch.bfloat16, requires_grad=True)
        out = F.scaled_dot_product_attention(q, q, q)
        F.interpolate(out.float(), (5, 32), mode='bilinear').sum().backward()
    assert out.device.type == q.grad.device.type == 'cuda'
