"""When an optimizer's step is fused, and runs that change between fused and not."""
import pytest
import torch

from mmseg_custom.errors import InputError
from mmseg_custom.optim.fused import with_fused

ADAMW = dict(type='AdamW', lr=1e-3)


@pytest.mark.parametrize('options, asked, fast, expected', [
    (ADAMW, None, False, None), (ADAMW, None, True, True), (ADAMW, True, False, True),
    (ADAMW, False, True, None), (dict(ADAMW, fused=False), True, True, False),
    (dict(ADAMW, foreach=True), None, True, None), (dict(type='RMSprop'), None, True, None)])
def test_a_step_is_fused_where_it_is_asked_for(options, asked, fast, expected):
    for device in ('cuda', 'cpu'):
        found = with_fused(options, asked, fast, device)
        assert found.get('fused') is expected
        assert {**found, 'fused': None} == {**options, 'fused': None}


@pytest.mark.parametrize('kind', ['RMSprop', 'LowMemoryAdamW'])
def test_an_optimizer_without_a_fused_step_is_named(kind):
    with pytest.raises(InputError, match=rf"optimizer.type='{kind}' has no fused step on cuda: .*"
                                         'AdamW, Adam, SGD'):
        with_fused(dict(type=kind), True, False, 'cuda')


def test_torch_has_what_is_offered():
    for kind in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = kind([weight], lr=0.1, fused=True)
        weight.grad = torch.ones(3)
        optimizer.step()
        assert (weight < 1).all()
