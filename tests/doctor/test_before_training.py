"""The number of recomputed blocks of a run is decided before it is built."""
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmcv import Config

from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.topology import Topology
from mmseg_custom.doctor import before_training
from mmseg_custom.doctor.before_training import decide_recomputation
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.errors import InputError
from mmseg_custom.units import GIB


def run_of(device: str = 'cuda', ranks: int = 1, freeze_vit: bool = False, **engine) -> Run:
    cfg = Config(dict(
        model=segmentor_config('linear', embed_dim=24, depth=9, num_heads=2, img_size=56,
                               out_indices=[8], freeze_vit=freeze_vit),
        optimizer=dict(type='AdamW', lr=1e-4), precision='bf16',
        data=dict(train=dict(pipeline=[dict(type='Pad', size=(56, 56))]))))
    return Run(cfg, RunOptions(device=device), Engine.of(engine), Batch(2, ranks))


@pytest.fixture
def card(monkeypatch):
    """A GPU of 5 GiB, and a prediction that is made up."""
    monkeypatch.setattr(before_training, 'least_memory', lambda: 5 * GIB)
    monkeypatch.setattr(before_training, '_predict', lambda cfg, shape, engine: SimpleNamespace(
        blocks=4 if shape.memory == 5 * GIB else None))
    return monkeypatch


def test_what_asks_for_nothing_is_left_alone(card):
    card.setattr(before_training, 'least_memory', None)
    for run in (run_of(), run_of(checkpoint_every=2), run_of(checkpoint_every='auto',
                                                             freeze_vit=True)):
        assert decide_recomputation(run) is run


def test_all_blocks_on_the_cpu():
    run = decide_recomputation(run_of('cpu', checkpoint_every='auto'))
    assert run.engine == Engine(checkpoint_every=1)


@pytest.mark.parametrize('asked', [dict(checkpoint_every='auto'), dict(fast=True)])
def test_the_run_recomputes_what_was_chosen(card, asked):
    run = decide_recomputation(run_of(**asked))
    assert run.engine == Engine.of({**asked, 'type': 'single', 'checkpoint_every': 1,
                                    'checkpoint_blocks': 4})


def test_hosts_are_decided_first(card):
    """Each of two hosts with four processes has room for all states."""
    card.setattr(before_training, 'find_topology', lambda device: Topology((4, 4), 5 * GIB))
    card.setattr(before_training, '_predict', lambda cfg, shape, engine: SimpleNamespace(
        blocks=(shape.per_node, engine.hybrid, engine.type)))
    engine = decide_recomputation(run_of(ranks=8, checkpoint_every='auto')).engine
    assert engine.checkpoint_blocks == (4, True, 'fsdp2')
    assert engine.hybrid is engine.reshard_after_forward is True


def test_a_network_whose_memory_cannot_be_predicted(card):
    card.setattr(before_training, '_predict', lambda *_: InputError('it fails'))
    with pytest.raises(InputError, match='it fails'):
        decide_recomputation(run_of(checkpoint_every='auto'))


@pytest.mark.slow
def test_the_prediction_runs_in_a_process_of_its_own(monkeypatch):
    """Without drawing a random number in this one."""
    monkeypatch.setattr(before_training, 'least_memory', lambda: 5 * GIB)
    before = torch.get_rng_state()
    assert decide_recomputation(run_of(checkpoint_every='auto')).engine.checkpoint_blocks == 0
    assert torch.equal(torch.get_rng_state(), before)
    failing = run_of(checkpoint_every='auto')
    failing.cfg.data.train.pipeline[0].size = (50, 50)
    with pytest.raises(InputError, match=r'cannot be predicted \(.*14.*\): give the number'):
        decide_recomputation(failing)
