"""Heads that are trained together are what they are alone, up to rounding in float32."""
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from mmcv import Config

from mmseg_custom.distributed.options import AUTO
from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.sweep.backbone import SharedBackbone
from mmseg_custom.engine.sweep.grid import combinations
from mmseg_custom.engine.sweep.head_group import group_heads
from mmseg_custom.engine.sweep.probe import IterationBatches, Probe

NAMES = SimpleNamespace(CLASSES=('class',) * 150, PALETTE=[[0, 0, 0]] * 150)
SWEEP = dict(lr=[1e-3, 1e-2], weight_decay=[0., .1])


@pytest.fixture
def heads(tmp_path, monkeypatch):
    """Builds and starts the heads of a sweep of the tiny recipe."""
    def build(name='heads', sweep=SWEEP, accumulation=1, **settings):
        cfg = Config.fromfile('configs/tiny/linear_probing_tiny.py')
        cfg.model.backbone.update(depth=2, out_indices=[1])
        cfg.merge_from_dict({key.replace('__', '.'): value for key, value in settings.items()})
        cfg.update(work_dir=str(tmp_path / name), sweep=sweep)
        run = Run(cfg, RunOptions(device='cpu', seed=3), AUTO, Batch(2, accumulation=accumulation),
                  data=dict(train=NAMES), timestamp='test')
        torch.manual_seed(0)
        found = combinations(cfg)
        shared = SharedBackbone(run, sorted({layer for one in found
                                             for layer in one.cfg.model.backbone.out_indices}))
        probes = [Probe(one.name, replace(run, cfg=one.cfg), shared) for one in found]
        for probe in probes:
            probe.start()
        return probes
    return build


def batches(count=1, layers=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return IterationBatches([dict(
        img_metas=[{}] * 2, feats=[torch.randn(2, 192, 8, 8, generator=generator) * 3 + 1
                                   for _ in range(layers)],
        gt_semantic_seg=torch.randint(0, 150, (2, 1, 56, 56), generator=generator))
        for _ in range(count)], 100)


def train_both(heads, iterations=4, accumulation=1, layers=1, **settings):
    """Trains heads together and alone on the same batches."""
    together = heads('together', accumulation=accumulation, **settings)
    alone = heads('alone', accumulation=accumulation, **settings)
    groups = group_heads(together)
    for i in range(iterations):
        part = batches(accumulation, layers, seed=i)
        for group in groups:
            assert not group.step(part, group.probes)
        for probe in alone:
            probe.step(part)
    return groups, together, alone


def assert_close(probe, expected, rel=1e-6):
    assert probe.runner.iter == expected.runner.iter
    assert probe.loss == pytest.approx(expected.loss, rel=rel)
    logged, alone = (one.runner.log_buffer.val_history for one in (probe, expected))
    assert logged.keys() == alone.keys()
    state, other = (unwrap(one.model).state_dict() for one in (probe, expected))
    for name, value in other.items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=2e-6, msg=name)
    own, other = (one.runner.optimizer.state_dict() for one in (probe, expected))
    assert [g['lr'] for g in own['param_groups']] == [g['lr'] for g in other['param_groups']]
    assert own['state'].keys() == other['state'].keys()
    for i, values in other['state'].items():
        for name, value in values.items():
            torch.testing.assert_close(own['state'][i][name], value, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize('settings', [
    {}, dict(model__decode_head__dropout_ratio=0.3, accumulation=2),
    dict(model__decode_head__with_norm=False, model__decode_head__loss_decode__loss_weight=.4)])
def test_heads_end_where_they_end_alone(heads, settings):
    groups, together, alone = train_both(heads, **settings)
    assert [group.probes for group in groups] == [together]
    for probe, expected in zip(together, alone):
        assert_close(probe, expected)
    weights = [unwrap(probe.model).decode_head.conv_seg.weight for probe in together]
    assert not any(torch.equal(weights[0], other) for other in weights[1:])


def test_a_head_that_diverges_leaves_the_others_alone(heads):
    together, alone = heads('together', SWEEP), heads('alone', SWEEP)
    group, = group_heads(together)
    spoilt = unwrap(together[1].model).decode_head.conv_seg.weight
    with torch.no_grad():
        spoilt[0, 0] = float('inf')
    before = spoilt.clone()
    faults = group.step(batches(), together)
    assert list(faults) == [together[1]]
    assert 'the loss is nan in iteration 1' in faults[together[1]].fault
    assert torch.equal(spoilt, before) and not together[1].runner.optimizer.state
    left = [probe for probe in together if probe not in faults]
    group.step(batches(seed=1), left)
    for probe, expected in zip(together, alone):
        for seed in (0, 1):
            expected.step(batches(seed=seed))
        if probe not in faults:
            assert_close(probe, expected)


def test_what_is_trained_alone(heads):
    """Heads of other layers are a group of their own; one alone, and clipped ones, are none."""
    layers = dict(lr=[1e-3, 1e-2], layers=[0, 1])
    groups = group_heads(heads('layers', layers))
    assert [len(group.probes) for group in groups] == [2, 2]
    assert not group_heads(heads('one', dict(lr=[1e-3])))
    for settings in (dict(optimizer_config=dict(grad_clip=dict(max_norm=1.))),
                     dict(model__decode_head__num_convs=1),
                     dict(model__decode_head__loss_decode__use_sigmoid=True)):
        assert not group_heads(heads('others', **settings))
