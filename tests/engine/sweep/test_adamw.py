"""The steps of many AdamWs at once are those of each, bit for bit."""
import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from mmseg_custom.engine.sweep.adamw import AdamWSteps, can_step_together


def optimizers(foreach):
    """Builds three of different rates, the first with two parameter groups."""
    torch.manual_seed(0)
    found = []
    for lr, decay in ((1e-3, 0.), (1e-2, .1), (3e-2, .05)):
        weight, bias = nn.Parameter(torch.randn(5, 7)), nn.Parameter(torch.randn(5))
        found.append(AdamW([dict(params=[weight]), dict(params=[bias], weight_decay=0., lr=lr / 2)],
                           lr, betas=(.8, .95), weight_decay=decay, foreach=foreach))
    return found


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group['params']]


def set_gradients(found, seed):
    torch.manual_seed(seed)
    for optimizer in found:
        for p in parameters(optimizer):
            p.grad = torch.randn_like(p)


@pytest.mark.parametrize('foreach', [True, False])
def test_steps_together_are_those_of_each(foreach):
    together, alone, steps = optimizers(foreach), optimizers(foreach), AdamWSteps()
    for i in range(6):
        for found in (together, alone):
            set_gradients(found, i)
            for optimizer in found:
                optimizer.param_groups[0]['lr'] *= 0.9  # as schedules do
        if i == 3:  # as if resumed; the last head is stopped
            for optimizer in together:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            steps = AdamWSteps()
        stepping = slice(0, 3 if i < 3 else 2)
        steps.step(together[stepping])
        for optimizer in alone[stepping]:
            optimizer.step()
    for own, other in zip(together, alone):
        for p, expected in zip(parameters(own), parameters(other)):
            assert torch.equal(p, expected)
            for name, value in other.state[expected].items():
                assert torch.equal(own.state[p][name], value), name


def test_what_cannot_step_together():
    weight = [nn.Parameter(torch.zeros(1))]
    assert can_step_together(AdamW(weight)) and can_step_together(AdamW(weight, fused=True))
    assert not can_step_together(AdamW(weight, amsgrad=True))
    assert not can_step_together(torch.optim.SGD(weight, .1))
    assert not can_step_together(AdamW([dict(params=weight), dict(
        params=[nn.Parameter(torch.zeros(1))], betas=(.5, .5))]))
