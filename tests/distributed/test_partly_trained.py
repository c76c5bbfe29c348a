"""Adapters and last blocks train alike in one process, under DDP and FSDP2: helpers/traces.py."""
import pytest
from helpers.trace_runs import Traces, assert_same

KINDS = dict(
    lora=dict(adapt=dict(type='lora', r=4)),
    dora=dict(adapt=dict(type='lora', r=4, use_dora=True, blocks=[1, 3])),
    last_blocks=dict(train_last=2),
    norms=dict(train_last=1, train_norms=True))
INT8 = dict(frozen_dtype='int8')
ENGINES = dict(one=dict(engine='single'), ddp=dict(ranks=2, engine='ddp'),
               fsdp2=dict(ranks=2, engine='fsdp2'))
RUNS = {}
for _kind, _backbone in KINDS.items():
    for _engine, _options in ENGINES.items():
        _options = dict(_options, iters=4, norm=False, backbone=_backbone)
        RUNS[f'{_kind}_{_engine}'] = _options
        RUNS[f'{_kind}_{_engine}_added_up'] = dict(_options, accumulation=2, checkpoint_every=2)
        RUNS[f'{_kind}_{_engine}_in_bfloat16'] = dict(_options, dtype='bfloat16', native=True)
        RUNS[f'{_kind}_{_engine}_rounded'] = dict(_options, dtype='bfloat16')
        RUNS[f'{_kind}_{_engine}_int8'] = dict(_options, backbone=dict(_backbone, **INT8))


@pytest.fixture(scope='module')
def traces(zygote, tmp_path_factory) -> Traces:
    zygote.import_once('peft')
    return Traces(zygote, tmp_path_factory.mktemp('traces'), RUNS)


def of_each(*engines: str) -> list:
    return [(kind, engine) for kind in KINDS for engine in engines]


@pytest.mark.slow
@pytest.mark.parametrize('kind, engine', of_each('ddp', 'fsdp2'))
def test_engines_train_alike(traces, kind, engine):
    losses = traces[f'{kind}_one']['losses']
    assert losses[-1] < losses[0]
    assert_same(traces, f'{kind}_one', f'{kind}_{engine}')


@pytest.mark.slow
@pytest.mark.parametrize('kind, engine', of_each('one', 'ddp', 'fsdp2'))
def test_the_way_to_the_batch_changes_nothing(traces, kind, engine):
    assert_same(traces, f'{kind}_one', f'{kind}_{engine}_added_up')
