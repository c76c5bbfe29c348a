"""Blocks that queries pass train alike in one process, under DDP and FSDP2: helpers/traces.py."""
import pytest
import torch
from helpers.trace_runs import Traces, assert_same

KINDS = dict(full=dict(), last_blocks=dict(train_last=3), lora=dict(adapt=dict(type='lora', r=4)))
ENGINES = dict(one=dict(engine='single'), ddp=dict(ranks=2, engine='ddp'),
               fsdp2=dict(ranks=2, engine='fsdp2'))
RUNS = {}
for _kind, _backbone in KINDS.items():
    for _engine, _options in ENGINES.items():
        _options = dict(_options, iters=4, queried=2, backbone=_backbone)
        RUNS[f'{_kind}_{_engine}'] = _options
        RUNS[f'{_kind}_{_engine}_added_up'] = dict(_options, accumulation=2, checkpoint_every=2)
        RUNS[f'{_kind}_{_engine}_in_bfloat16'] = dict(_options, dtype='bfloat16', native=True)


@pytest.fixture(scope='module')
def traces(zygote, tmp_path_factory) -> Traces:
    zygote.import_once('peft')
    return Traces(zygote, tmp_path_factory.mktemp('traces'), RUNS)


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
@pytest.mark.parametrize('kind', KINDS)
def test_engines_train_alike(traces, kind, engine):
    losses = traces[f'{kind}_one']['losses']
    assert losses[-1] < losses[0]
    assert_same(traces, f'{kind}_one', f'{kind}_{engine}')
    assert_same(traces, f'{kind}_one', f'{kind}_{engine}_added_up')


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
@pytest.mark.parametrize('kind', KINDS)
def test_bfloat16_trains_alike(traces, kind, engine):
    a, b = traces[f'{kind}_one_in_bfloat16'], traces[f'{kind}_{engine}_in_bfloat16']
    assert a['losses'] != traces[f'{kind}_one']['losses']
    torch.testing.assert_close(b['losses'], a['losses'], rtol=2e-2, atol=0)
    for name, tensor in a['state_dict'].items():
        torch.testing.assert_close(b['state_dict'][name], tensor, rtol=0.1, atol=4e-2)
