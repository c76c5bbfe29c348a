"""When an optimizer's step is fused, and runs that change between fused and not."""
import pytest
import torch

from mmseg_custom.errors import InputError
from mmseg_custom.optim.fused import with_fused

ADAMW = dict(type='AdamW', lr=1e-3)


@pytest.mark.parametrize('options, wanted, expected', [
    (ADAMW, False, None), (ADAMW, True, True), (dict(ADAMW, fused=False), True, False),
    (dict(ADAMW, foreach=True), True, None), (dict(type='RMSprop'), True, None)])
def test_a_step_is_fused_where_it_is_asked_for(options, wanted, expected):
    for device in ('cuda', 'cpu'):
        found = with_fused(options, wanted, False, device)
        assert found.get('fused') is expected
        assert {**found, 'fused': None} == {**options, 'fused': None}


@pytest.mark.parametrize('kind', ['RMSprop', 'LowMemoryAdamW'])
def test_an_optimizer_without_a_fused_step_is_named(kind):
    with pytest.raises(InputError, match=rf"optimizer.type='{kind}' has no fused step on cuda: .*"
                                         'AdamW, Adam, SGD'):
        with_fused(dict(type=kind), True, True, 'cuda')


def test_torch_has_what_is_offered():
    for kind in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = kind([weight], lr=0.1, fused=True)
        weight.grad = torch.ones(3)
        optimizer.step()
        assert (weight < 1).all()
