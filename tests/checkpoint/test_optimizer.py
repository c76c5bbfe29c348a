"""States of optimizers by the names of parameters, of this program and of others."""
import re

import pytest
import torch
from helpers.foreign_optimizer import (
    BY_PARAMETER,
    LAYER_DECAY,
    ONE_GROUP,
    check_moments,
    segmentor,
    write_foreign,
)
from mmcv.runner import build_optimizer

from mmseg_custom.checkpoint import load_optimizer, open_checkpoint, save_checkpoint
from mmseg_custom.errors import InputError


@pytest.mark.parametrize('config', [LAYER_DECAY, ONE_GROUP, BY_PARAMETER])
def test_moments_of_the_original_reach_their_weights(tmp_path, config):
    """It registers proj before q_norm and k_norm, whose shapes are those of proj's bias."""
    path = str(tmp_path / 'foreign.pth')
    write_foreign(path, config)
    model = segmentor()
    optimizer = build_optimizer(model, config)
    load_optimizer(optimizer, open_checkpoint(path), model)
    check_moments(optimizer, model)
    decays = [group['weight_decay'] for group in build_optimizer(model, config).param_groups]
    assert [group['weight_decay'] for group in optimizer.param_groups] == decays


@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_on_two_ranks(zygote, tmp_path, engine):
    path = str(tmp_path / 'foreign.pth')
    write_foreign(path, LAYER_DECAY)
    zygote.run('tests/helpers/foreign_optimizer.py', path, engine, ranks=2)


def test_order_of_modules_does_not_matter_for_own_files(tmp_path):
    path, model = str(tmp_path / 'own.pth'), segmentor()
    optimizer = build_optimizer(model, ONE_GROUP)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_checkpoint(model, path, optimizer)
    saved = open_checkpoint(path).optimizer
    assert saved['param_groups'][0]['param_names'] == [n for n, _ in model.named_parameters()]
    other = segmentor()
    other.backbone.blocks[0]._modules.pop('norm1')
    other.backbone.blocks[0].norm1 = model.backbone.blocks[0].norm1  # registered last
    loaded = build_optimizer(other, ONE_GROUP)
    load_optimizer(loaded, open_checkpoint(path), other)
    mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    for name in mine:
        assert torch.equal(optimizer.state[mine[name]]['exp_avg'],
                           loaded.state[theirs[name]]['exp_avg'])


@pytest.mark.parametrize('fused', [True, False])
def test_a_run_computes_its_steps_in_its_own_way(tmp_path, fused):
    """Whichever way the run took that saved the checkpoint."""
    path, model = str(tmp_path / 'own.pth'), segmentor()
    saved, own = (build_optimizer(model, {**ONE_GROUP, 'fused': value})
                  for value in (not fused, fused))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    saved.step()
    save_checkpoint(model, path, saved)
    load_optimizer(own, open_checkpoint(path), model)
    assert [group['fused'] for group in own.param_groups] == [fused]
    own.step()
    assert {state['step'].item() for state in own.state.values()} == {2}


def test_unknown_order_is_refused(tmp_path):
    """Groups of layer decay are not in the order of the modules."""
    path = str(tmp_path / 'foreign.pth')
    write_foreign(path, LAYER_DECAY, named=False)
    model = segmentor()
    with pytest.raises(InputError, match='not known which weights .* without param_names'):
        load_optimizer(build_optimizer(model, LAYER_DECAY), open_checkpoint(path), model)


def test_own_files_from_before_names_are_read_by_position(tmp_path):
    path, model = str(tmp_path / 'own.pth'), segmentor()
    optimizer = build_optimizer(model, LAYER_DECAY)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number))
    optimizer.step()
    save_checkpoint(model, path, optimizer, dict(internvit_seg_version='0.1'))
    checkpoint, loaded = open_checkpoint(path), build_optimizer(model, LAYER_DECAY)
    for group in checkpoint.optimizer['param_groups']:
        del group['param_names']
    load_optimizer(loaded, checkpoint, model)
    for parameter in model.parameters():
        mine, saved = loaded.state[parameter], optimizer.state[parameter]
        assert torch.equal(mine['exp_avg'], saved['exp_avg'])


def test_another_kind_of_optimizer_is_refused(tmp_path):
    path, model = str(tmp_path / 'sgd.pth'), segmentor()
    save_checkpoint(model, path, build_optimizer(model, dict(type='SGD', lr=1.0)))
    with pytest.raises(InputError, match='has no betas: it is of another kind than AdamW'):
        load_optimizer(build_optimizer(model, ONE_GROUP), open_checkpoint(path), model)


def test_other_parameters_are_named(tmp_path):
    path, model = str(tmp_path / 'own.pth'), segmentor()
    save_checkpoint(model, path, build_optimizer(model, LAYER_DECAY))
    optimizer = build_optimizer(model, LAYER_DECAY)
    checkpoint = open_checkpoint(path)
    group = checkpoint.optimizer['param_groups'][0]
    group['param_names'] = [re.sub('cls_token', 'other', name) for name in group['param_names']]
    with pytest.raises(InputError, match='no state for backbone.cls_token'):
        load_optimizer(optimizer, checkpoint, model)
