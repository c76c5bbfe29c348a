"""Combinations that train a part of the backbone."""
import pytest
from helpers.logs import logged
from mmcv import Config

from mmseg_custom.engine.sweep.grid import combinations
from mmseg_custom.engine.sweep.partly_trained import log_passes
from mmseg_custom.engine.tuning import shares_feature_maps
from mmseg_custom.errors import InputError

FROZEN = 'configs/tiny/linear_probing_tiny.py'
LAST, LORA = {'model.backbone.train_last': 2}, {'model.backbone.adapt': dict(type='lora')}
THAWED = {'model.backbone.freeze_vit': False}


def config(options=None, **sweep):
    cfg = Config.fromfile(FROZEN)
    cfg.merge_from_dict(options or {})
    cfg.work_dir, cfg.sweep = 'work', sweep
    return cfg


def found(options=None, **sweep):
    return combinations(config(options, **sweep))


def test_a_frozen_recipe_trains_blocks_where_the_sweep_says_so():
    runs = found(train_last=[1, 3], lr=[1e-4, 1e-3])
    assert [one.name for one in runs] == [
        'last1_lr0.0001', 'last1_lr0.001', 'last3_lr0.0001', 'last3_lr0.001']
    for one in runs:
        backbone = one.cfg.model.backbone
        assert backbone.train_last == one.settings['train_last'] and not backbone.freeze_vit
        assert 'sweep' not in one.cfg and one.cfg.work_dir == f'work/{one.name}'
    assert not shares_feature_maps(config(train_last=[1]))
    assert shares_feature_maps(config(lr=[1]))


def test_settings_of_adapters():
    runs = found(LORA, r=[4, 8], alpha=[8.0], head=['linear', 'upernet'])
    assert [one.name for one in runs] == [
        'linear_r4_alpha8', 'linear_r8_alpha8', 'upernet_r4_alpha8', 'upernet_r8_alpha8']
    assert [one.cfg.model.backbone.adapt.r for one in runs] == [4, 8, 4, 8]
    assert {one.cfg.model.backbone.adapt.alpha for one in runs} == {8}
    assert runs[2].cfg.model.backbone.with_fpn


@pytest.mark.parametrize('options, sweep, message', [
    ({}, dict(r=[4]), 'sweep.r=[4]: the backbone has no adapters: expected model.backbone.adapt'),
    ({}, dict(r=[4], train_last=[2]), 'no adapters and trains its last blocks: expected'),
    ({**LAST, **THAWED}, dict(alpha=[4]), 'sweep.alpha=[4]: the backbone has no adapters and'),
    (LORA, dict(train_last=[2]), 'sweep.train_last=[2] with model.backbone.adapt'),
    (LORA, dict(r=[4], heads_at_once=2), 'sweep.heads_at_once=2: where a part'),
    ({}, dict(train_last=[4], batched=True), 'sweep.batched=True: where a part'),
    (LORA, dict(r=[0]), 'sweep.r: 0: expected a whole number of 1 or more'),
    (LORA, dict(alpha=[-1]), 'sweep.alpha: -1: expected a number, more than 0'),
    ({}, dict(train_last=[2.5]), 'sweep.train_last: 2.5: expected a whole number'),
    ({}, dict(train_last=[2, 2]), 'sweep.train_last: 2 is there twice'),
    (THAWED, dict(lr=[1e-3]), 'the backbone is trained')])
def test_what_makes_no_sense_is_refused(options, sweep, message):
    with pytest.raises(InputError) as error:
        found(options, **sweep)
    assert message in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('options, cached, sweep, lines', [
    # 4 blocks: forward, and backward for the gradients of inputs, is twice a frozen pass.
    (LORA, False, dict(r=[4, 8]), ['LoRA runs share no feature maps: 2 run(s) in all, one after '
                                   'another, which compute as much as about 4 passes']),
    # 3 + 3, and 2 + 2 x 3 blocks, of which 5 of 14 are frozen.
    ({}, False, dict(train_last=[1, 2]), ['about 3.5 passes', '36 % of this are frozen blocks']),
    ({}, True, dict(train_last=[1, 2]), ['about 2.25 passes', 'once, for 2 feature cache(s): '
                                         'before block 2, 3'])])
def test_what_is_shared_is_said_before_the_start(options, cached, sweep, lines):
    options = {**options, 'model.backbone.depth': 4, 'model.backbone.out_indices': [3],
               'model.backbone.with_cp': False}
    with logged() as logs:
        log_passes([one.cfg.model.backbone for one in found(options, **sweep)], cached)
    assert len(logs) == len(lines)
    for line, expected in zip(logs, lines):
        assert expected in line
