"""AdamW on bfloat16 weights: torchao's, and how it is built here."""
import sys

import pytest
import torch
from mmcv import Config
from torch import nn

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
