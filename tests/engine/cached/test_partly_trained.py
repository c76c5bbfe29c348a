"""Caches of what stands before the first trained block: contents, keys, refusals, memory."""
import itertools
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.data import SMALL_LINEAR, draw_data, prepare, write_config
from mmcv import Config

from mmseg_custom.checkpoint import save_checkpoint
from mmseg_custom.checkpoint.checkpoint import open_checkpoint
from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.engine.before_start import check_before_start
from mmseg_custom.engine.build import build_model
from mmseg_custom.engine.cached import drop_unneeded_blocks, open_cache
from mmseg_custom.engine.cached.key import describe, differences
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.randomness import SeededSamples
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.sampler import InfiniteSampler
from mmseg_custom.errors import InputError
from mmseg_custom.feature_cache import manage

LORA = dict(type='lora', r=2, alpha=4)


@pytest.fixture(scope='module')
def frozen(tmp_path_factory) -> Run:
    """A run of a frozen backbone of four blocks on three images."""
    folder = tmp_path_factory.mktemp('partly')
    path = write_config(folder / 'config.py', draw_data(folder, train=3, val=1),
                        extra=SMALL_LINEAR.replace('depth=2', 'depth=4'))
    return prepare(path, ['train'], {'model.backbone.out_indices': [0, 3]},
                   work_dir=str(folder / 'work'), seed=3)


def tuned(run: Run, cache: object = None, **backbone) -> Run:
    """Returns the run with another tuning of its backbone, and a cache."""
    cfg = Config(deepcopy(dict(run.cfg)))
    cfg.model.backbone.update(freeze_vit=False, **backbone)
    if cache is not None:
        cfg.feature_cache = dict(dir=str(cache), views=1, dtype='fp32')
    return replace(run, cfg=cfg)


def model_of(run: Run, drop: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(run, partial(drop_unneeded_blocks, run) if drop else None)


def test_a_cache_holds_what_the_first_trained_block_is_given(frozen, tmp_path):
    run = tuned(frozen, tmp_path, train_last=2)
    model = model_of(run)
    cached, plain = open_cache(run, model), SeededSamples(run.data['train'], 0)
    backbone = unwrap(model).backbone
    assert backbone.first_trained == 2
    for place in itertools.islice(InfiniteSampler(3, seed=0), 3):
        image = plain[place]['img'].data[None]
        found = [part.data[None] for part in cached[place]['feats']]
        assert [tuple(x.shape[1:]) for x in found] == [(32, 4, 4), (32, 1, 1), (32, 4, 4)]
        for mine, expected in zip(found, backbone.frozen_features(image), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
        model.eval()
        for mine, expected in zip(backbone(found), backbone(image), strict=True):
            torch.testing.assert_close(mine, expected, rtol=2 ** -6, atol=1e-2)
    (name, _), = manage.caches_in(str(tmp_path))
    assert 'tokens before block 2 and maps of blocks [0] of 4' in manage.summarize(
        str(tmp_path), name).line()


def test_keys(frozen):
    """The first trained block decides, not what is trained from there on."""
    def key(run: Run) -> dict:
        return describe(run, unwrap(model_of(run)), 0)

    last, plain = key(tuned(frozen, train_last=1)), key(frozen)
    assert key(tuned(frozen, adapt=dict(LORA, blocks=[3]))) == last
    assert key(tuned(frozen, adapt=dict(LORA, blocks=[3], r=4, targets=['qkv']))) == last
    other = differences(key(tuned(frozen, train_last=2)), last)
    assert other == ['backbone.tokens_before', 'weights']  # of the blocks before
    assert differences(last, plain) == ['backbone.out_indices', 'backbone.tokens_before', 'weights']
    # Those of frozen backbones are named as ever.
    assert not {'adapt', 'train_last', 'train_norms', 'tokens_before'} & plain['backbone'].keys()


def test_without_validation_frozen_blocks_are_dropped(frozen, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    path, saved = str(tmp_path / 'weights.pth'), str(tmp_path / 'iter_1.pth')
    torch.save(unwrap(model_of(frozen)).backbone.state_dict(), path)
    # Block 3 is not read.
    run = tuned(frozen, tmp_path / 'cache', train_last=1, pretrained=path, out_indices=[0, 2])
    whole = model_of(run)
    filled = open_cache(run, whole)
    spared = model_of(run, drop=True)
    assert open_cache(run, spared).cache.folder == filled.cache.folder
    backbone = unwrap(spared).backbone
    assert [bool(list(block.parameters())) for block in backbone.blocks] == [
        False, False, True, False]
    with pytest.raises(RuntimeError, match='the blocks of this backbone were dropped'):
        backbone(torch.zeros(1, 3, 56, 56))
    feats = [part.data[None] for part in filled[0, 0]['feats']]
    for mine, expected in zip(backbone(feats), unwrap(whole).backbone(feats), strict=True):
        assert torch.equal(mine, expected)
    with torch.no_grad():
        backbone.blocks[2].mlp.fc1.weight += 1
    save_checkpoint(spared, saved)
    names = {name.split('.')[2] for name in torch.load(saved)['state_dict'] if '.blocks.' in name}
    assert names == {'2'}
    loaded = unwrap(build_model(replace(run, checkpoint=open_checkpoint(saved)))).backbone
    expected = {**unwrap(whole).backbone.state_dict(), **backbone.state_dict()}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize('backbone, message', [
    (dict(adapt=LORA), 'adapt puts adapters into block 0, .* model.backbone.adapt.blocks='),
    (dict(train_last=4), 'train_last=4 trains all blocks that are read'),
    (dict(train_last=1, train_norms=True), 'train_norms=True trains norms from block 0 on'),
    (dict(), 'the backbone is trained, .*train_last')])
def test_what_leaves_nothing_to_cache_is_refused_before_the_start(
        frozen, tmp_path, backbone, message):
    run = tuned(frozen, tmp_path, **backbone)
    with pytest.raises(InputError, match=f'^feature_cache: .*{message}') as error:
        check_before_start(run.cfg, RunOptions(), ['train'])
    assert '\n' not in str(error.value)
