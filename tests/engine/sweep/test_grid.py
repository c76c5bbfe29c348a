import pytest
from mmcv import Config

from mmseg_custom.engine.config import kind_of
from mmseg_custom.engine.sweep.grid import combinations, union_of_layers
from mmseg_custom.errors import InputError

FOLDER, RECIPE = 'configs/intern_vit_6b', 'intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py'
LINEAR = f'{FOLDER}/linear_probing/linear_{RECIPE}'
UPERNET = f'{FOLDER}/head_tuning/upernet_{RECIPE}'
TINY = 'configs/tiny/linear_probing_tiny.py'


def found(path=LINEAR, options=None, **sweep):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    cfg.work_dir, cfg.sweep = 'work', sweep
    return combinations(cfg)


def test_all_combinations_each_a_config_of_its_own():
    heads = found(lr=[1e-5, 4e-5, 1e-4], weight_decay=[0, 0.01], layers=[23, 35, 44, 47],
                  head=['linear', 'upernet'])
    assert len(heads) == 4 * 3 * 2 + 3 * 2
    assert len({one.name for one in heads}) == len(heads)
    assert heads[0].name == 'linear_l23_lr1e-05_wd0'
    assert heads[-1].name == 'upernet_l23-35-44-47_lr0.0001_wd0.01'
    assert union_of_layers(heads) == [23, 35, 44, 47]
    for one in heads:
        cfg = one.cfg
        assert 'sweep' not in cfg and cfg.work_dir == f'work/{one.name}'
        assert cfg.optimizer.lr == one.settings['lr']
        assert cfg.optimizer.weight_decay == one.settings['weight_decay']
        layers = one.settings['layers']
        assert list(cfg.model.backbone.out_indices) == (
            [layers] if isinstance(layers, int) else list(layers))
        assert kind_of(cfg.model) == one.settings['head']
        assert cfg.model.backbone.get('with_fpn', False) == (one.settings['head'] == 'upernet')


@pytest.mark.parametrize('path, head, other', [(LINEAR, 'upernet', UPERNET),
                                               (UPERNET, 'linear', LINEAR)])
def test_another_head_is_that_of_the_recipe_with_it(path, head, other):
    one, = found(path, head=[head], options={'model.decode_head.num_classes': 7})
    expected = Config.fromfile(other).model
    expected.decode_head.num_classes = 7
    assert one.cfg.model.decode_head == expected.decode_head
    assert list(one.cfg.model.backbone.out_indices) == (
        [11, 23, 35, 47] if head == 'upernet' else [47])
    auxiliary = one.cfg.model.auxiliary_head
    assert (auxiliary is None) == (expected.get('auxiliary_head') is None)
    assert auxiliary is None or auxiliary.num_classes == 7


def test_which_blocks_upernet_reads():
    def layers(given):
        return [one.settings['layers'] for one in found(layers=given, head=['upernet'])]
    assert layers([47, 23, 44, 35]) == [(23, 35, 44, 47)]  # four are its four
    assert layers([23, 47]) == [(11, 23, 35, 47)]  # else those of its recipe
    assert found(TINY, head=['upernet'])[0].cfg.model.backbone.out_indices == [1, 2, 3, 5]
    assert layers([47, [3, 11, 19, 27], (8, 16, 24, 32)]) == [(3, 11, 19, 27), (8, 16, 24, 32)]


def test_which_blocks_a_mask_decoder_reads():
    def layers(given):
        return [one.settings['layers'] for one in found(
            'configs/tiny/plain_mask_tiny.py', layers=given)]
    own = tuple(Config.fromfile('configs/tiny/plain_mask_tiny.py').model.backbone.out_indices)
    assert layers([5]) == [own]
    assert layers([[0, 2, 3, 4], 5, (1, 2, 3, 5)]) == [(0, 2, 3, 4), (1, 2, 3, 5)]


@pytest.mark.parametrize('sweep, message', [
    ({}, 'nothing to vary'),
    (dict(learning_rate=[1]), "'learning_rate'"),
    (dict(lrs=[1]), "(did you mean 'lr'?)"),
    (dict(lr=[-1e-3]), 'sweep.lr: -0.001: expected a number, more than 0'),
    (dict(lr=['big']), "sweep.lr: 'big'"),
    (dict(lr=[1e-3, 1e-3]), 'is there twice'),
    (dict(weight_decay=[-1]), 'sweep.weight_decay: -1'),
    (dict(layers=[48]), 'sweep.layers: 48: expected a block from 0 to 47'),
    (dict(layers=[[1, 2]]), 'sweep.layers: (1, 2)'),
    (dict(layers=[[1, 2, 3, 4]]), 'no single block for the linear head'),
    (dict(head=['mask2former']), 'expected one of linear, upernet'),
    (dict(head=['upernet'], models=dict(upernet='nothing.py')), 'nothing.py does not exist'),
    (dict(head=['upernet'], models=dict(upernet=LINEAR)), 'has no upernet head'),
    (dict(lr=[1e-3], heads_at_once=0), 'heads_at_once=0: expected 1 or more'),
    (dict(lr=[1e-3], batched='yes'), "batched='yes': expected True, False, or None")])
def test_what_cannot_be_is_refused(sweep, message):
    with pytest.raises(InputError) as error:
        found(**sweep)
    assert message in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('options, message', [
    ({'model.backbone.freeze_vit': False}, 'freeze_vit=True'),
    ({'model.backbone.unfreeze_pos_embed': True}, 'unfreeze_pos_embed=False'),
    ({'model.backbone.type': 'ResNet'}, "'ResNet'"),
    ({'model.backbone.embed_dim': 100}, 'sweep.models=dict(')])
def test_backbones_that_cannot_be_shared(options, message):
    with pytest.raises(InputError, match='sweep') as error:
        found(options=options, head=['upernet'])
    assert message in str(error.value)
