"""A tiny cache from its config on: what is in it, what makes another one, what is refused."""
import itertools
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.data import SMALL_LINEAR, draw_data, prepare, write_config
from helpers.logs import logged
from helpers.nesting import NESTINGS, WRAPPERS
from mmcv import Config
from mmseg.datasets import build_dataset
from torch import nn

from mmseg_custom.checkpoint import save_checkpoint
from mmseg_custom.checkpoint.checkpoint import open_checkpoint
from mmseg_custom.distributed.parallelize import unwrap
from mmseg_custom.engine import background
from mmseg_custom.engine.build import build_model
from mmseg_custom.engine.cached import CachedViews, drop_unneeded_blocks, open_cache
from mmseg_custom.engine.cached import open as opening
from mmseg_custom.engine.cached.key import describe, differences
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.loaders import build_train_loader
from mmseg_custom.engine.randomness import SeededSamples
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.sampler import InfiniteSampler
from mmseg_custom.errors import InputError
from mmseg_custom.feature_cache import FeatureCache, Shard, layout, manage
from mmseg_custom.models.frozen_features import frozen_features


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Run:
    """A run on five images."""
    folder = tmp_path_factory.mktemp('cached')
    path = write_config(folder / 'config.py', draw_data(folder, train=5, val=1),
                        extra=SMALL_LINEAR)
    return prepare(path, ['train'], {'model.backbone.out_indices': [0, 1]},
                   work_dir=str(folder / 'work'), seed=3)


@pytest.fixture(scope='module')
def model(run) -> nn.Module:
    """The segmentor of the run."""
    torch.manual_seed(0)
    return unwrap(build_model(run))


def changed(run: Run, settings: dict | None = None, **keys) -> Run:
    """Returns the run with some settings of its config changed."""
    cfg = Config({**deepcopy(dict(run.cfg)), **keys})
    cfg.merge_from_dict(settings or {})
    return replace(run, cfg=cfg)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(layout, 'SHARD_RECORDS', 2)


def open_in(folder: Path, run: Run, model: nn.Module, dataset=None, **settings) -> CachedViews:
    run = changed(run, feature_cache=dict(dir=str(folder), **{'views': 2, **settings}))
    return open_cache(replace(run, data=dict(train=dataset or run.data['train'])), model)


@pytest.fixture(scope='module')
def filled(run, model, tmp_path_factory) -> Path:
    """A folder with the cache of two views; not to be changed."""
    folder = tmp_path_factory.mktemp('filled')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, 'SHARD_RECORDS', 2)
        open_in(folder, run, model)
    return folder


@pytest.fixture
def copy(filled, tmp_path) -> Path:
    shutil.copytree(filled, tmp_path / 'copy')
    return tmp_path / 'copy'


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob('view*')}


def test_the_first_passes_are_those_of_an_uncached_run(run, model, filled):
    cached = open_in(filled, run, model)
    plain = SeededSamples(run.data['train'], 0)
    stream = iter(InfiniteSampler(5, seed=0))
    for _ in range(10):
        place = next(stream)
        sample, kept = plain[place], cached[place]
        expected = frozen_features(model, dict(img=sample['img'].data[None]))
        for found, wanted in zip(kept['feats'], expected, strict=True):
            torch.testing.assert_close(found.data.float(), wanted[0], rtol=2 ** -8, atol=1e-4)
        assert torch.equal(kept['gt_semantic_seg'].data, sample['gt_semantic_seg'].data)
    position, image = next(stream)  # the third pass has the first one's crops again
    first = next(p for p, i in iter(InfiniteSampler(5, seed=0)) if i == image)
    assert torch.equal(cached[position, image]['feats'][0].data,
                       cached[first, image]['feats'][0].data)


def test_batches_of_the_loader_train_the_heads(run, model, filled):
    loader = build_train_loader(run, open_in(filled, run, model))
    batch = next(iter(loader))
    features = frozen_features(model, dict(feats=[part.data[0] for part in batch['feats']]))
    assert [tuple(x.shape) for x in features] == [(2, 32, 4, 4)] * 2
    assert tuple(batch['gt_semantic_seg'].data[0].shape) == (2, 1, 56, 56)
    assert batch['gt_semantic_seg'].data[0].dtype == torch.int64
    assert batch['img_metas'].data[0][0]['ori_filename'].startswith('ADE_train')


def test_what_is_cached_is_read_and_views_are_added(run, model, filled, tmp_path, monkeypatch):
    monkeypatch.setattr(opening.Filler, 'fill', None)  # nothing to fill: an error if it were
    assert len(open_in(filled, run, model)) == 5 and open_in(filled, run, model, views=1).views == 1
    monkeypatch.undo()
    monkeypatch.setattr(layout, 'SHARD_RECORDS', 2)
    open_in(tmp_path, run, model, views=1)
    open_in(tmp_path, run, model, views=2)
    assert contents(tmp_path) == contents(filled) and len(contents(filled)) == 6


@pytest.mark.parametrize('beside', [False, True])
def test_interrupted_and_resumed(run, model, filled, tmp_path, monkeypatch, beside):
    """Also where feature maps are stored in a thread beside, as with a GPU."""
    if beside:
        monkeypatch.setattr(background, '_thread_for', lambda device: ThreadPoolExecutor(1))
    written, write = [], FeatureCache.write

    def two_and_no_more(cache, shard, data):
        if len(written) == 2:
            open(cache.path_of(shard) + '.part', 'w').close()
            raise KeyboardInterrupt
        written.append(shard)
        write(cache, shard, data)
    monkeypatch.setattr(FeatureCache, 'write', two_and_no_more)
    with pytest.raises(KeyboardInterrupt):
        open_in(tmp_path, run, model)
    monkeypatch.setattr(FeatureCache, 'write', write)
    assert len([path for path in tmp_path.rglob('view*.safetensors')]) == 2
    open_in(tmp_path, run, model)
    assert contents(tmp_path) == contents(filled)
    (name, _), = manage.caches_in(str(tmp_path))
    assert manage.verify(FeatureCache.open(str(tmp_path), name)) == {}


def test_stopped_by_a_signal(run, model, tmp_path):
    run = changed(run, feature_cache=dict(dir=str(tmp_path)))
    with pytest.raises(SystemExit) as stop:
        open_cache(run, model, lambda: True)
    assert stop.value.code == 75


@pytest.mark.parametrize('how', ['byte', 'cut', 'gone'])
def test_a_corrupt_shard_is_named_and_computed_anew(run, model, filled, copy, how):
    path = sorted(copy.rglob('view01*.safetensors'))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data if how == 'byte' else data[:100])
    if how == 'gone':
        path.unlink()
    with logged() as lines:
        open_in(copy, run, model)
    assert (f'{path} is corrupt' in '\n'.join(lines)) == (how != 'gone')
    assert contents(copy) == contents(filled)


def test_a_full_disk_is_refused_before_anything_is_written(run, model, tmp_path, monkeypatch):
    free = 5 * 4 * (2 * 32 * 16 * 2 + 56 * 56)
    monkeypatch.setattr(opening.shutil, 'disk_usage', lambda _: SimpleNamespace(free=free))
    with pytest.raises(InputError, match=(
            '5 images x 7 views x 5.18 kB = 181 kB, of which 181 kB are still to be written; '
            '104 kB are free on the disk of .*feature_cache.views=4, which fits')):
        open_in(tmp_path / 'new', run, model, views=7)
    assert not (tmp_path / 'new').exists()
    open_in(tmp_path / 'new', run, model, views=4)


def test_without_validation_the_blocks_are_dropped(run, model, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    path, saved = str(tmp_path / 'weights.pth'), str(tmp_path / 'iter_1.pth')
    torch.save(model.backbone.state_dict(), path)
    run = changed(run, {'model.backbone.pretrained': path},
                  feature_cache=dict(dir=str(tmp_path / 'cache'), views=1))

    def build():
        model = build_model(run, partial(drop_unneeded_blocks, run))
        return model, unwrap(model).backbone
    model, backbone = build()
    assert len(backbone.blocks) == 2  # there is nothing yet
    filled = open_cache(run, model)
    model, spared = build()
    assert len(spared.blocks) == 0
    again = open_cache(run, model)
    assert again.cache.folder == filled.cache.folder
    with pytest.raises(RuntimeError, match='the blocks of this backbone were dropped'):
        spared.frozen_features(torch.zeros(1, 3, 56, 56))
    save_checkpoint(model, saved)
    whole = build_model(replace(run, checkpoint=open_checkpoint(saved)))
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(unwrap(whole).backbone.state_dict()[name], tensor)
    assert not any('blocks' in name for name in torch.load(saved)['state_dict'])


def test_key(run, model):
    def of(changes=None, dataset=None, seed=0):
        other = changed(run, changes)
        return describe(replace(other, data=dict(train=dataset or run.data['train'])), model, seed)
    same = of()
    assert json.loads(json.dumps(same)) == same
    for harmless in ({'optimizer.lr': 1.0}, {'model.backbone.qkv_bias': False},
                     {'model.backbone.use_flash_attn': False}, {'model.decode_head.channels': 7},
                     {'model.backbone.with_fpn': True}, {'data.train.data_root': 'elsewhere'}):
        assert of(harmless) == same, harmless
    few = build_dataset(dict(run.cfg.data.train, max_image_num=3))
    for changes, name in (
            (dict(changes={'model.backbone.out_indices': [1]}), 'backbone.out_indices'),
            (dict(changes={'model.backbone.norm_type': 'layer_norm'}), 'backbone.norm_type'),
            (dict(changes={'precision': 'fp32'}), 'computed_in'),
            (dict(changes={'data.train.pipeline.4.prob': 0.4}), 'data.pipeline'),
            (dict(changes={'data.train.type': 'CustomDataset'}), 'data.type'),
            (dict(dataset=few), 'images'), (dict(seed=1), 'seed')):
        assert differences(of(**changes), same) == [name]


def nested_run(kind: str, data: Path, folder: Path) -> Run:
    cfg = load_config(str(write_config(folder / 'config.py', data, extra=SMALL_LINEAR)),
                      {'model.backbone.out_indices': [0, 1]})
    cfg.data.train = NESTINGS[kind].of(dict(cfg.data.train))
    return prepare(cfg, ['train'], work_dir=str(folder / 'work'), seed=3)


def test_keys_of_nested_data(model, shared_data, tmp_path):
    keys = []
    for kind in ('plain', *WRAPPERS):
        keys.append(describe(nested_run(kind, shared_data, tmp_path), model, 0))
        count = sum(map(len, NESTINGS[kind].names))
        assert keys[-1]['images'].startswith(f'{count} images, ')
    assert all(differences(a, b) for a, b in itertools.combinations(keys, 2))


@pytest.mark.parametrize('kind', [
    'list', 'lists of folders', 'RepeatDataset', 'list of nested'])
def test_nested_data_are_cached(model, shared_data, tmp_path, kind):
    run, length = nested_run(kind, shared_data, tmp_path), NESTINGS[kind].length
    cached, plain = open_in(tmp_path, run, model, views=1), SeededSamples(run.data['train'], 0)
    assert len(cached) == length
    for place in itertools.islice(InfiniteSampler(length, seed=0), length):
        expected = frozen_features(model, dict(img=plain[place]['img'].data[None]))
        for found, wanted in zip(cached[place]['feats'], expected, strict=True):
            torch.testing.assert_close(found.data.float(), wanted[0], rtol=2 ** -8, atol=1e-4)


def test_the_key_knows_weights_and_files(run, model, own_data):
    weights = describe(run, model, 0)['weights']
    with torch.no_grad():
        model.backbone.pos_embed[0, 0, 0] += 1
        changed = describe(run, model, 0)['weights']
        model.backbone.pos_embed[0, 0, 0] -= 1
    assert weights.startswith('tensors, SHA-256 ') and changed != weights
    images = build_dataset(dict(run.cfg.data.train, data_root=str(own_data)))
    before = describe(replace(run, data=dict(train=images)), model, 0)['images']
    path = next((own_data / 'images/training').iterdir())
    path.write_bytes(path.read_bytes() + b'\0')
    assert describe(replace(run, data=dict(train=images)), model, 0)['images'] != before


def test_what_cannot_be_kept_is_refused(run, model, tmp_path, monkeypatch):
    for settings, message in (
            (dict(views=0), 'feature_cache.views=0: expected a whole number of 1 or more'),
            (dict(dtype='int8'), "dtype='int8': expected one of bf16, fp16, fp32"),
            (dict(view=3), "'view' .did you mean 'views'"), (dict(seed='a'), "seed='a'")):
        with pytest.raises(InputError, match=message):
            open_in(tmp_path, run, model, **settings)
    with pytest.raises(InputError, match=r'feature_cache.dir=None: expected a folder'):
        open_cache(changed(run, feature_cache=dict(views=1)), model)
    pipeline = [step for step in run.cfg.data.train.pipeline if step.type not in
                ('RandomCrop', 'Pad')]
    uneven = build_dataset(dict(run.cfg.data.train, pipeline=pipeline))
    with pytest.raises(InputError, match='gives a crop of .* end the training pipeline with'):
        open_in(tmp_path, run, model, uneven)
    pipeline = [*run.cfg.data.train.pipeline[:-1], dict(type='Collect', keys=['img'])]
    with pytest.raises(InputError, match="collects .'img', 'img_metas'.: expected"):
        open_in(tmp_path, run, model, build_dataset(dict(run.cfg.data.train, pipeline=pipeline)))
    monkeypatch.setattr(model.backbone.pos_embed, 'requires_grad', True)
    with pytest.raises(InputError, match='unfreeze_pos_embed=True trains the position'):
        open_in(tmp_path, run, model)


def test_float32_feature_maps_of_a_cache_are_exact(run, model, tmp_path):
    cached = open_in(tmp_path, run, model, views=1, dtype='fp32')
    place = next(place for place in InfiniteSampler(5, seed=0) if place[0] == 0)
    sample, kept = SeededSamples(run.data['train'], 0)[place], cached[place]
    expected = frozen_features(model, dict(img=sample['img'].data[None]))
    assert all(x.data.dtype == torch.float32 for x in kept['feats'])
    for found, wanted in zip(kept['feats'], expected):
        torch.testing.assert_close(found.data, wanted[0], rtol=1e-4, atol=1e-5)
    assert not os.path.exists(cached.cache.path_of(Shard(1, 0)))
