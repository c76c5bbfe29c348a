"""What the doctor advises where a run does not fit."""
import copy
import re
from dataclasses import replace

import pytest
from helpers.tiny_networks import segmentor_config
from mmcv import Config

from mmseg_custom.distributed.memory import FRAGMENTATION, RESERVE
from mmseg_custom.distributed.options import Engine
from mmseg_custom.doctor import advice
from mmseg_custom.doctor.advice import _changes, advise, tuning_settings
from mmseg_custom.doctor.memory import MemoryEstimate, estimate, predict
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.doctor.ways import ways_of
from mmseg_custom.engine.batch_norm import find_single_value
from mmseg_custom.engine.key_values import read_value
from mmseg_custom.engine.tuning import tuning_in
from mmseg_custom.units import GIB, MIB

CROP = (112, 112)


def config() -> Config:
    """Head tuning with a UPerNet."""
    model = segmentor_config(
        'upernet', heads=dict(norm_cfg=dict(type='SyncBN'), channels=64), freeze_vit=True,
        embed_dim=64, img_size=112)
    return Config(dict(
        model=model, optimizer=dict(type='AdamW', lr=1e-4), precision='bf16',
        data=dict(train=dict(pipeline=[dict(type='Pad', size=CROP)]))))


def chosen(estimates: list[MemoryEstimate]) -> MemoryEstimate:
    return next(each for each in estimates if each.chosen)


def peak_of(cfg: Config, images: int, ranks: int) -> int:
    return chosen(predict(cfg, RunShape('cuda', ranks, images, CROP, accumulation=2))).peak


def with_room_for(cfg: Config, images: int, ranks: int) -> int:
    """Bytes of a GPU that a run with so many images just fits."""
    return int((peak_of(cfg, images, ranks) + RESERVE) / (1 - FRAGMENTATION)) + MIB


@pytest.mark.slow
@pytest.mark.parametrize('ranks, least', [(1, 2), (2, 1)])
def test_advises_no_fewer_images_than_batch_norm_needs(ranks, least):
    cfg = config()
    shape = RunShape('cuda', ranks, 8, CROP, memory=with_room_for(cfg, least, ranks))
    estimates = predict(cfg, shape)
    assert chosen(estimates).fits is False
    faults, _ = advise(cfg, estimates, shape)
    found = re.search(r'data.samples_per_gpu=(\d+) and --total-batch (\d+) with (\w+): ',
                      faults[0].way_out)
    assert found and (int(found[1]), int(found[2])) == (least, 8 * ranks)
    assert find_single_value(cfg, ranks) is None or least > 1
    again = predict(cfg, replace(shape, images=least, accumulation=8 // least))
    assert {each.name: each for each in again}[found[3]].fits


def test_advises_the_low_memory_optimizer_before_offloading():
    cfg = config()
    low = copy.deepcopy(cfg)
    low.optimizer.type = 'LowMemoryAdamW'
    shape = RunShape('cuda', 1, 2, CROP, memory=with_room_for(low, 2, 1))
    _, found = advise(cfg, predict(cfg, shape), shape)
    assert found[0].startswith('optimizer.type=LowMemoryAdamW (pip install torchao) with single')


def test_advises_to_train_a_part_of_the_backbone(monkeypatch):
    """Of what is predicted to fit, where a run that trains all of it does not."""
    cfg = config()
    cfg.model.backbone.freeze_vit = False
    names = []

    def predicted(changed: Config, shape: RunShape) -> MemoryEstimate:
        backbone = changed.model.backbone
        names.append({name: backbone[name] for name in ('adapt', 'train_last', 'frozen_dtype')
                      if name in backbone})
        return MemoryEstimate('single', True, False, {'weights': 5 * GIB},
                              fits='frozen_dtype' in backbone or 'train_last' in backbone)

    monkeypatch.setattr(advice, 'fastest', predicted)
    shape = RunShape('cuda', 1, 2, CROP, memory=9 * GIB)
    assert list(advice._other_ways(cfg, shape, lambda text: None)) == [
        'LoRA r=16, int8 base in the place of what is trained now: 5.0 GiB (model.backbone.adapt.'
        'type=lora, model.backbone.frozen_dtype=int8, model.backbone.with_cp=True)',
        'last 4 blocks in the place of what is trained now: 5.0 GiB (model.backbone.train_last=4, '
        'model.backbone.with_cp=True)']
    assert len(names) == 3
    cfg.model.backbone.freeze_vit = True
    assert not list(advice._other_ways(cfg, shape, lambda text: None))


def test_advises_nothing_where_it_fits():
    cfg = config()
    shape = RunShape('cuda', 1, 2, CROP, memory=80 * GIB)
    assert advise(cfg, predict(cfg, shape), shape) == ([], [])


def test_simulates_one_image_where_processes_share_the_statistics():
    for device in ('cuda', 'cpu'):
        shape = RunShape(device, 2, 1, CROP)
        assert estimate(config(), shape, Engine('ddp'), False)[0].peak > 0


def test_advises_the_options_of_a_sharded_run_that_take_less():
    cfg = config()
    cfg.model.backbone.freeze_vit = False
    cfg.engine = dict(type='fsdp2', reshard_after_forward=False, hybrid=True)
    words = [words for words, changed, _ in _changes(cfg, RunShape('cuda', 16, 1, CROP))]
    assert words[:2] == ['engine.reshard_after_forward=True', 'engine.hybrid=False']
    one_host = [words for words, *_ in _changes(cfg, RunShape('cuda', 8, 1, CROP))]
    assert one_host[0] == words[0] and words[1] not in one_host
    cfg.engine = dict(type='ddp', reshard_after_forward=False)
    assert not any('engine' in words for words, *_ in _changes(cfg, RunShape('cuda', 8, 2, CROP)))


def test_advises_to_recompute_no_more_than_needed():
    def row(checkpointing: bool, peak: int) -> MemoryEstimate:
        return MemoryEstimate('single', checkpointing, False, {'activations': peak},
                              chosen=not checkpointing, fits=checkpointing)
    shape = RunShape('cuda', 1, 2, CROP, memory=80 * GIB)
    faults, _ = advise(config(), [row(True, 60 * GIB), row(False, 90 * GIB)], shape)
    assert faults[0].way_out == (
        'single + checkpointing: 60.0 GiB (--engine single, model.backbone.with_cp=True); '
        'engine.checkpoint_every=auto recomputes no more blocks than have to be')


@pytest.mark.parametrize('backbone', [
    dict(freeze_vit=False), dict(adapt=dict(type='lora', r=16), freeze_vit=True),
    dict(train_last=2, train_norms=True, frozen_dtype='int8'),
    dict(train_last=0, train_norms=True),
    dict(freeze_vit=True, unfreeze_pos_embed=True)], ids=str)
def test_names_the_options_that_train_another_part(backbone):
    """They do not contradict what the config has."""
    cfg = config()
    cfg.model.backbone.update({'freeze_vit': False, **backbone})
    for way in ways_of(cfg):
        changed = copy.deepcopy(cfg)
        changed.merge_from_dict({key: read_value(value) for key, _, value in (
            setting.partition('=') for setting in tuning_settings(cfg, way.cfg))})
        assert tuning_in(changed.model.backbone) == tuning_in(way.cfg.model.backbone), way.name
        assert changed.optimizer.type == way.cfg.optimizer.type
        for name in ('frozen_dtype', 'unfreeze_pos_embed'):
            there, expected = (each.model.backbone.get(name) for each in (changed, way.cfg))
            assert there == expected or not there and not expected
