"""What mmcv's hooks expect of each wrapper, on GPUs that are not there."""
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from helpers.nccl_group import HostTensor, nccl_group
from mmcv.parallel import DataContainer, is_module_wrapper
from mmcv.runner.hooks import TextLoggerHook
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_custom.distributed.wrappers import (
    SegmentorAlone,
    SegmentorDDP,
    SegmentorFSDP,
    wrap_alone,
)

WRAPPERS = [SegmentorAlone, SegmentorDDP, SegmentorFSDP]


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that this process has the second GPU of a machine."""
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device=None: 3 << 20)


def logged_memory(model: nn.Module, ranks: int) -> torch.Tensor:
    """Lets mmcv's text logger reduce the memory; returns the tensor that it reduced."""
    reduced = []
    hook = TextLoggerHook(by_epoch=False)

    def reduce(tensor: torch.Tensor, *args: object, **options: object) -> None:
        reduced.append(tensor)
        return real(tensor, *args, **options)

    real = dist.reduce
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, 'reduce', reduce)
        patch.setattr(torch.Tensor, 'item', lambda tensor: None)  # a fake tensor has no value
        hook._get_max_memory(SimpleNamespace(model=model, world_size=ranks))
    return reduced[0]


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_logger_reduces_on_the_gpu(gpu, wrapper):
    with nccl_group(8) as group, FakeTensorMode(), group.watched():
        with torch.device('cuda:1'):
            module = nn.Linear(2, 2)
        # DDP compares parameters over the ranks in C++, which fake ones have no memory for.
        options = dict(init_sync=False) if wrapper is SegmentorDDP else {}
        model = wrapper(module, 'cuda', **options)
        assert logged_memory(model, 8).device == torch.device('cuda:1')
    assert ('reduce_', {'cuda'}) in group.seen


def test_the_watch_refuses_tensors_of_the_cpu():
    """As of mmcv's logger with a wrapper that names no device."""
    with nccl_group(8) as group, FakeTensorMode(), group.watched(), pytest.raises(HostTensor):
        dist.reduce(torch.ones(1), 0)
    with nccl_group(8), pytest.raises(RuntimeError, match='No backend type associated with device'):
        dist.reduce(torch.ones(1), 0)
    with nccl_group(8, host=True) as group, FakeTensorMode(), group.watched(host=True):
        dist.reduce(torch.ones(1), 0)
    assert group.seen == [('reduce_', {'cpu'})]


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_a_run_on_the_cpu_of_a_machine_with_gpus(gpu, monkeypatch, process_group, wrapper):
    """None is what torch's statistics and tensors take; the tensor goes through gloo."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    module = nn.Linear(2, 2)
    model = wrap_alone(module, 'cpu') if wrapper is SegmentorAlone else wrapper(module, 'cpu')
    assert model.output_device is None and is_module_wrapper(model)
    assert logged_memory(model, 2).device.type == 'cpu'
    assert module.weight.device.type == 'cpu'


class Steps(nn.Linear):
    """A module whose validation step calls it with the unpacked batch, as mmseg's does."""

    def val_step(self, batch: dict, scale: float = 1.) -> torch.Tensor:
        assert not self.training
        return scale * self(**batch)


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_a_validation_step_runs_on_the_unpacked_batch(process_group, wrapper):
    module = Steps(2, 2)
    model = wrap_alone(module, 'cpu') if wrapper is SegmentorAlone else wrapper(module, 'cpu')
    batch = dict(input=DataContainer([torch.ones(3, 2)], stack=True))
    with torch.no_grad():
        found = model.eval().val_step(batch, scale=2.)
        assert torch.equal(found, 2. * module(torch.ones(3, 2)))
