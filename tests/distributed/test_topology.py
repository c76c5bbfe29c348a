"""What the hosts of a run decide: hybrid sharding, and whether gathered weights are kept."""
from dataclasses import replace

import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor

from mmseg_custom.distributed import mesh, topology
from mmseg_custom.distributed.memory import state_bytes
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.topology import ACTIVATIONS, Topology, find_topology, resolve_topology

OPTIMIZER = dict(type='AdamW', lr=1e-4)


@pytest.fixture(scope='module')
def model():
    with torch.device('meta'):
        return build_segmentor(segmentor_config('linear', depth=6))


def resolve(model, sizes, memory, **options) -> tuple:
    engine = resolve_topology(Engine('fsdp2', **options), model, Topology(sizes, memory),
                              torch.bfloat16, OPTIMIZER)
    return engine.hybrid, engine.reshard_after_forward


def memory_for(model, ranks: int, **options) -> int:
    """Bytes of a GPU that states shared by so many, and activations, just fit into."""
    states = sum(state_bytes(model, 'fsdp2', ranks, Engine('fsdp2', **options)))
    return int(states / (1 - ACTIVATIONS)) + 2


def test_hosts_share_nothing_where_each_has_room_for_all_states(model):
    enough = memory_for(model, 2)
    assert resolve(model, (2, 2, 2), enough) == (True, True)
    assert resolve(model, (2, 2, 2), enough - 8)[0] is False
    assert resolve(model, (2, 2, 1), enough)[0] is False  # a mesh has equal rows
    assert resolve(model, (1, 1, 1), memory_for(model, 1))[0] is False
    assert resolve(model, (2, 2, 2), enough, hybrid=False)[0] is False


def test_one_row_over_hosts_keeps_the_weights_where_there_is_room(model):
    enough = memory_for(model, 6, reshard_after_forward=False)
    rows = dict(hybrid=False)
    assert resolve(model, (2, 2, 2), enough, **rows) == (False, False)
    assert resolve(model, (2, 2, 2), enough - 8, **rows) == (False, True)
    assert resolve(model, (6,), enough * 10) == (False, True)  # within a host
    assert resolve(model, (2, 2, 2), enough, reshard_after_forward=True, **rows) == (False, True)


def test_where_no_memory_is_known_nothing_changes(model):
    assert resolve(model, (2, 2), None) == (False, True)
    assert resolve(model, (2, 2), None, hybrid=True, reshard_after_forward=False) == (True, False)


def test_offloaded_states_need_no_room_on_the_gpu(model):
    working = state_bytes(model, 'fsdp2', 2).working
    enough = int(working / (1 - ACTIVATIONS)) + 2
    assert resolve(model, (2, 2), enough, cpu_offload=True)[0] is True
    assert resolve(model, (2, 2), enough)[0] is False


def test_the_hosts_of_a_run(monkeypatch):
    monkeypatch.setattr(mesh, 'gather_to_all', lambda host: ['a', 'b', 'a'])
    assert find_topology('cpu') == Topology((2, 1), None)
    monkeypatch.setattr(topology, 'least_memory', lambda: 10**12)
    assert replace(find_topology('cuda'), memory=None) == Topology((2, 1), None)
    assert 0.9 * 10**12 < find_topology('cuda').memory < 10**12
