"""AdamW on bfloat16 weights: torchao's, and how it is built here."""
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from helpers.nccl_group import nccl_group
from mmcv import Config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from mmseg_custom.checkpoint.checkpoint import Checkpoint
from mmseg_custom.checkpoint.lazy import LazyStateDict, LazyTensor
from mmseg_custom.checkpoint.optimizer import load_optimizer, with_names
from mmseg_custom.checkpoint.save import prepare_save, save_checkpoint
from mmseg_custom.checkpoint.staging import HostCopies
from mmseg_custom.doctor.simulation import simulate_processes
from mmseg_custom.engine.build import master_dtype
from mmseg_custom.errors import InputError
from mmseg_custom.optim.low_memory import low_memory_adamw


def weights() -> list[nn.Parameter]:
    """A bfloat16 matrix large enough for 8 bits, one that is not, and a float32 one."""
    torch.manual_seed(0)
    matrix = nn.Parameter((torch.randn(64, 128) * 0.02).bfloat16())
    return [matrix, nn.Parameter(torch.randn(7, 5).bfloat16()), nn.Parameter(torch.randn(64, 64))]


def train(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        torch.manual_seed(step)  # as SeedHook does; the rounding draws
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = (noise + 0.3).to(parameter.dtype)
        optimizer.step()


def build(parameters: list[nn.Parameter], state: str) -> torch.optim.Optimizer:
    pytest.importorskip('torchao')
    return low_memory_adamw(parameters, state, lr=4e-5, weight_decay=0.05)


@pytest.mark.parametrize('state', ['8bit', 'bf16'])
def test_small_steps_add_up(state):
    """On average as far as float32 weights; rounded to the nearest, most would stay."""
    parameters, exact, nearest = weights(), weights(), weights()
    start = parameters[0].detach().float().clone()
    exact[0] = nn.Parameter(start.clone())
    train(parameters, build(parameters, state), range(50))
    train(exact, torch.optim.AdamW(exact, lr=4e-5, weight_decay=0.05), range(50))
    train(nearest, torch.optim.AdamW(nearest, lr=4e-5, weight_decay=0.05), range(50))
    far = [(p[0].detach().float() - start).mean().item() for p in (parameters, exact, nearest)]
    assert far[0] == pytest.approx(far[1], rel=0.1)
    assert abs(far[2]) < 0.7 * abs(far[1])
    assert parameters[0].dtype == torch.bfloat16


@pytest.mark.parametrize('state', ['8bit', 'bf16'])
def test_a_state_dict_brings_it_back_bit_by_bit(state, tmp_path):
    whole, resumed = weights(), weights()
    optimizer = build(whole, state)
    train(whole, optimizer, range(6))
    first = build(resumed, state)
    train(resumed, first, range(3))
    content = first.state_dict()
    if state == '8bit':
        assert content['state'][0]['exp_avg'].dtype == torch.float32
        assert {type(v) for v in content['state'][0].values()} == {torch.Tensor}
    assert content['param_groups'][0]['lr'] == 4e-5
    torch.save(content, tmp_path / 'state.pth')
    second = build(resumed, state)
    second.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
    train(resumed, second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed))
    assert optimizer.state_dict()['state'][0]['exp_avg_sq'].equal(
        second.state_dict()['state'][0]['exp_avg_sq'])


@pytest.mark.parametrize('state', ['8bit', 'bf16'])
def test_a_shard_is_trained_like_a_tensor_of_its_size(state):
    """With FSDP2 the parameters and gradients are DTensors, and so are the moments."""
    plain = weights()[0]
    with simulate_processes(2) as mesh:
        def shard(x: torch.Tensor) -> DTensor:
            return DTensor.from_local(x, mesh, [Shard(0)], run_check=False)

        sharded = nn.Parameter(shard(plain.detach().clone()))
        optimizers = [build([parameter], state) for parameter in (plain, sharded)]
        for step in range(3):
            plain.grad = torch.randn(plain.shape).bfloat16()
            sharded.grad = shard(plain.grad)
            for optimizer in optimizers:
                torch.manual_seed(step)  # the rounding draws
                optimizer.step()
        assert torch.equal(sharded.to_local(), plain)
        whole, parts = (optimizer.state_dict()['state'][0] for optimizer in optimizers)
        for name in ('exp_avg', 'exp_avg_sq'):
            assert parts[name].dtype == whole[name].dtype
            assert torch.equal(parts[name].to_local(), whole[name])


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of a device that tensors made inside take together."""

    def __init__(self, device: str):
        super().__init__()
        self.device, self.now, self.peak = device, 0, 0
        self._seen = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == self.device and (
                    not is_traceable_wrapper_subclass(tensor)):
                storage = tensor.untyped_storage()
                if storage not in self._seen:
                    self._seen[storage] = True
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, nbytes: int) -> None:
        self.now -= nbytes


@pytest.fixture
def on_fake_gpu():
    """Fake tensors of a GPU; the tables of the 8-bit codes are computed before."""
    pytest.importorskip('torchao')
    from torchao.optim.subclass_8bit import get_qmap_signed, get_qmap_unsigned
    get_qmap_signed(), get_qmap_unsigned()
    return FakeTensorMode(allow_non_fake_inputs=True)


def with_moments(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer with the state that its first step makes."""
    optimizer = build(parameters, '8bit')
    for parameter in parameters:
        optimizer.state[parameter] = dict(
            step=torch.tensor(1.0), exp_avg=optimizer._new_buffer(parameter, True),
            exp_avg_sq=optimizer._new_buffer(parameter, False))
    return optimizer


def test_a_state_dict_takes_a_gpu_the_memory_of_one_tensor(on_fake_gpu):
    count, numbers = 16, 128 * 1024
    with on_fake_gpu:
        optimizer = with_moments([nn.Parameter(torch.empty(
            128, 1024, dtype=torch.bfloat16, device='cuda')) for _ in range(count)])
        with LiveBytes('cuda') as gpu:
            state = optimizer.state_dict()['state']
    assert {value.device.type for values in state.values() for value in values.values()} == {'cpu'}
    assert state[0]['exp_avg'].dtype == torch.float32
    assert gpu.peak <= 4 * 4 * numbers < count * 2 * 4 * numbers / 4  # of all of them in float32


def test_a_file_is_written_moment_by_moment(tmp_path):
    parameters = [nn.Parameter(torch.randn(64, 128).bfloat16()) for _ in range(8)]
    optimizer = build(parameters, '8bit')
    train(parameters, optimizer, range(2))
    with LiveBytes('cpu') as host:
        save_checkpoint(nn.ParameterList(parameters), str(tmp_path / 'x.pth'), optimizer)
    assert host.peak < 8 * 64 * 128 * 4
    saved = torch.load(tmp_path / 'x.pth', weights_only=True)['optimizer']
    for index, values in optimizer.state_dict()['state'].items():
        assert all(torch.equal(saved['state'][index][name], v) for name, v in values.items())


def test_a_copy_for_the_background_has_the_moments_of_its_moment(tmp_path):
    """They are dequantised when they are copied: the next step changes the codes."""
    parameters = weights()
    optimizer, model = build(parameters, '8bit'), nn.ParameterList(parameters)
    train(parameters, optimizer, range(2))
    (tmp_path / 'copy').mkdir()
    save_checkpoint(model, str(tmp_path / 'x.pth'), optimizer)
    save = prepare_save(model, str(tmp_path / 'copy/x.pth'), optimizer)
    save = replace(save, content=HostCopies().copy(save.content))
    train(parameters, optimizer, range(2, 4))
    save.write()
    assert (tmp_path / 'copy/x.pth').read_bytes() == (tmp_path / 'x.pth').read_bytes()


@contextmanager
def cuda_mesh() -> Iterator[DeviceMesh]:
    """A mesh of two GPUs, of which no process but this one exists."""
    with nccl_group(2, host=True):
        yield DeviceMesh.from_group(dist.group.WORLD, 'cuda', mesh_dim_names=('shard',))


@pytest.mark.slow
def test_shards_are_saved_from_the_cpu_and_loaded_from_there(on_fake_gpu, monkeypatch):
    """As DTensors of the GPUs' mesh with parts on the CPU, which torch's checkpoints take."""
    count, shape = 64, (64, 128)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: Mock())  # no work to wait for
    with cuda_mesh() as mesh, on_fake_gpu:
        parameters = [nn.Parameter(DTensor.from_local(torch.empty(
            shape, dtype=torch.bfloat16, device='cuda'), mesh, [Shard(0)], run_check=False))
            for _ in range(count)]
        optimizer = with_moments(parameters)
        model = nn.ParameterList(parameters)
        saved = with_names(optimizer.state_dict(), optimizer, model)
        moment = saved['state'][0]['exp_avg']
        assert isinstance(moment, DTensor) and moment.device_mesh is mesh
        assert moment.to_local().device.type == 'cpu' and moment.to_local().shape == shape
        for source in (moment, parameters[0].detach()):
            copied = HostCopies().copy(dict(x=source))['x']
            assert isinstance(copied, DTensor) and copied.device_mesh is mesh
            assert copied.to_local().device.type == 'cpu' and copied.placements == (Shard(0),)
        for whole in (torch.empty(128, 128), LazyTensor((128, 128), torch.float32, torch.empty)):
            found = Reader()
            state = {i: dict(step=1.0, exp_avg=whole, exp_avg_sq=whole) for i in range(count)}
            with LiveBytes('cuda') as gpu:
                opened = Checkpoint('x', {}, LazyStateDict('x', {}), {**saved, 'state': state},
                                    reader=found)
                load_optimizer(optimizer, opened, model)
            assert gpu.peak < 0.7 * count * 2 * 4 * 64 * 128  # of all shards in float32
            assert {t.to_local().device.type for t in found.tensors} <= {'cpu'}
            restored = optimizer.state[parameters[0]]['exp_avg'].to_local()
            assert restored.codes.device.type == 'cuda' and restored.shape == shape


class Reader:
    """Stands for the reader of a folder: remembers what it was to fill."""

    def load_into(self, tensors: dict) -> None:
        self.tensors = list(tensors.values())


def test_wrong_input(monkeypatch):
    with pytest.raises(InputError, match="optimizer.state='4bit': expected one of 8bit, bf16"):
        low_memory_adamw([], state='4bit')
    monkeypatch.setitem(sys.modules, 'torchao', None)
    with pytest.raises(InputError, match='needs torchao.*pip install torchao'):
        low_memory_adamw(weights())


def test_what_weights_are_stored_in():
    def stored(**keys):
        return master_dtype(Config(keys))
    assert stored(optimizer=dict(type='AdamW')) == stored() == torch.float32
    assert stored(optimizer=dict(type='LowMemoryAdamW')) == torch.bfloat16
    with pytest.raises(InputError, match="precision='fp32' and optimizer.type='LowMemoryAdamW'"):
        stored(optimizer=dict(type='LowMemoryAdamW'), precision='fp32')
