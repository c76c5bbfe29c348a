"""Which blocks are equal, and the shallower networks that have all kinds of them."""
from dataclasses import replace

import pytest
from helpers.tiny_networks import segmentor_config
from mmcv import Config

from mmseg_custom.distributed.options import Engine
from mmseg_custom.doctor.depth import (
    Stretch,
    factors,
    recomputed_blocks,
    stretches_of,
    traced_networks,
    with_stretches,
)

EDGE = 2


def config(**backbone) -> Config:
    return Config(dict(model=segmentor_config(
        'upernet', **dict(dict(depth=48, out_indices=[11, 23, 35, 44]), **backbone))))


def lengths(networks: list[list[Stretch]]) -> list[list[int]]:
    return [[each.length for each in network] for network in networks]


@pytest.mark.parametrize('backbone, engine, expected', [
    (dict(freeze_vit=True), {}, [('frozen', False, 45, (11, 23, 35))]),
    ({}, {}, [('trained', True, 45, (11, 23, 35))]),
    ({}, dict(checkpoint_blocks=30), [('trained', True, 30, (11, 23)),
                                      ('trained', False, 15, (5,))]),
    (dict(adapt=dict(type='lora')), {}, [('trained', True, 45, (11, 23, 35))]),
    (dict(adapt=dict(type='lora', blocks=[30, 31, 44])), dict(checkpoint_blocks=4),
     [('frozen', False, 30, (11, 23)), ('trained', True, 2, ()), ('passed', True, 2, ()),
      ('passed', False, 10, (1,)), ('trained', False, 1, ())]),
    (dict(train_last=4), {}, [('frozen', False, 41, (11, 23, 35)), ('trained', True, 4, ())]),
    (dict(train_last=4, train_norms=True), dict(checkpoint_blocks=0),
     [('norms', False, 41, (11, 23, 35)), ('trained', False, 4, ())]),
    (dict(freeze_vit=True, unfreeze_pos_embed=True), {}, [('passed', True, 45, (11, 23, 35))])])
def test_blocks_that_agree_are_a_stretch(backbone, engine, expected):
    found = stretches_of(config(**backbone), Engine(**engine), checkpointing=True)
    assert found == [Stretch(*each) for each in expected]


@pytest.mark.parametrize('backbone, engine', [
    ({}, dict(checkpoint_every=3)), ({}, dict(checkpoint_blocks=30)),
    (dict(train_last=4), {}), (dict(train_last=20), dict(checkpoint_blocks=3)),
    (dict(train_last=0, train_norms=True), {}), (dict(freeze_vit=True), {}),
    (dict(adapt=dict(type='lora', blocks=[*range(10), 44])), {})])
def test_shallower_networks_have_the_stretches_that_they_are_made_for(backbone, engine):
    cfg, engine = config(**backbone), Engine(**engine)
    stretches = stretches_of(cfg, engine, checkpointing=True)
    networks = traced_networks(stretches, engine.every_kth, EDGE)
    assert networks is not None
    for network in networks:
        shallow = with_stretches(cfg, network)
        itself = replace(engine, checkpoint_blocks=recomputed_blocks(network, engine))
        assert stretches_of(shallow, itself, checkpointing=True) == network
        assert shallow.model.backbone.depth - sum(each.length for each in network) == 3  # unread
    least, *deeper = lengths(networks)
    whole, found = [each.length for each in stretches], list(least)
    for network, times in zip(deeper, factors(networks, stretches), strict=True):
        found = [a + (more - few) * times for a, more, few in zip(found, network, least)]
    assert found == whole and sum(map(sum, lengths(networks))) < sum(whole)


def test_a_network_of_many_short_stretches_is_traced_itself():
    cfg = config(adapt=dict(type='lora', blocks=[*range(0, 45, 4)]))
    stretches = stretches_of(cfg, Engine(), checkpointing=True)
    assert len(stretches) == 23 and traced_networks(stretches, 1, EDGE) is None
