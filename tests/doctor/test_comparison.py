"""Which ways of tuning a backbone fit a card."""
import json
from dataclasses import replace

import pytest
import torch
from helpers.commands import ROOT
from helpers.tiny_networks import segmentor_config
from mmcv import Config

from mmseg_custom.distributed.memory import memory_for
from mmseg_custom.distributed.options import Engine
from mmseg_custom.doctor import comparison
from mmseg_custom.doctor.comparison import Comparison, compare
from mmseg_custom.doctor.comparison_report import as_json, table
from mmseg_custom.doctor.kernels import PRODUCT, Kernel, KernelCall
from mmseg_custom.doctor.memory import MemoryEstimate, Traces, fits
from mmseg_custom.doctor.run_shape import RunShape
from mmseg_custom.doctor.ways import ways_of
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.errors import InputError
from mmseg_custom.models.tuning import FROZEN
from mmseg_custom.units import GIB

CROP = (112, 112)
PRODUCTS = Kernel(PRODUCT, torch.bfloat16)
NAMES = ['frozen', 'LoRA r=16, bf16 base', 'LoRA r=16, int8 base', 'last 4 blocks',
         'full, LowMemoryAdamW', 'full, AdamW']
PROBE = 'linear_probing/linear_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.py'
FULL = 'full_tuning/upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5.py'


def config(optimizer: str = 'AdamW', **backbone) -> Config:
    model = segmentor_config(**dict(dict(embed_dim=64, depth=6, img_size=112), **backbone))
    return Config(dict(
        model=model, optimizer=dict(type=optimizer, lr=1e-4), precision='bf16',
        data=dict(samples_per_gpu=2, workers_per_gpu=0,
                  train=dict(pipeline=[dict(type='Pad', size=CROP)]))))


def compared(cfg: Config, memory: float | None = 24 * GIB, ranks: int = 1) -> Comparison:
    return compare(cfg, RunOptions(device='cuda'), ranks, memory and int(memory), tflops=100)


@pytest.mark.parametrize('cfg, own, names', [
    (config(freeze_vit=True), 'frozen', NAMES),
    (config(adapt=dict(type='lora', r=8, blocks=[2, 5]), frozen_dtype='fp8'),
     'LoRA r=8, 2 blocks, fp8 base',
     [NAMES[0], 'LoRA r=8, 2 blocks, bf16 base', 'LoRA r=8, 2 blocks, fp8 base', *NAMES[3:]]),
    (config(adapt=dict(type='lora', use_dora=True)), 'DoRA r=16, bf16 base',
     [NAMES[0], 'DoRA r=16, bf16 base', 'DoRA r=16, int8 base', *NAMES[3:]]),
    (config(train_last=2, train_norms=True), 'last 2 blocks and norms',
     [*NAMES[:3], 'last 2 blocks and norms', *NAMES[4:]]),
    (config('LowMemoryAdamW'), NAMES[4], NAMES),
    (config('SGD'), 'full, SGD', [*NAMES[:5], 'full, SGD'])])
def test_the_way_of_the_config_has_its_own_settings(cfg, own, names):
    ways = list(ways_of(cfg))
    assert [way.name for way in ways] == names
    assert [way.name for way in ways if way.own] == [own]
    assert next(way.cfg for way in ways if way.own) is cfg
    for way in ways:
        assert way.cfg.model.decode_head == cfg.model.decode_head and way.cfg.data == cfg.data


@pytest.fixture
def peaks(monkeypatch) -> dict[str, float]:
    """Peaks that are predicted, in GiB: name of a way -> of each image."""
    found = dict(zip(NAMES, (5, 7, 3, 9, 16, 40)))

    def predicted(cfg: Config, shape: RunShape) -> MemoryEstimate:
        way = next(way for way in ways_of(cfg) if way.own)
        peak = round(found[way.name] * shape.images * GIB)
        estimate = MemoryEstimate('single', way.kind != FROZEN, False, dict(weights=peak),
                                  flops={PRODUCTS: 10**12},
                                  calls={PRODUCTS: KernelCall(PRODUCTS, 1, ((1, 1), (1, 1)))})
        return replace(estimate, fits=fits(estimate, shape))

    monkeypatch.setattr(comparison, 'fastest', predicted)
    return found


def test_a_table_says_what_fits_and_what_each_trains(peaks):
    found = compared(config(adapt=dict(type='lora'), frozen_dtype='int8'))
    trained = [each.trained for each in found.predictions]
    assert trained[0] < trained[1] == trained[2] < trained[3] < trained[4] == trained[5]
    lines = table(found, 'configs/x.py').splitlines()
    assert max(map(len, lines)) <= 80 and lines[0] == 'configs/x.py'
    rows = [line.split() for line in lines if line[2:].startswith(tuple(NAMES))]
    assert [row[-7] for row in rows] == ['yes', 'yes', 'yes', 'yes', 'no', 'no']
    assert [row[-8] for row in rows] == ['10.0', '14.0', '6.0', '18.0', '32.0', '80.0']
    assert [row[0] == '*' for row in rows] == [False, False, True, False, False, False]
    assert {row[-2] for row in rows} == {'single'} and rows[0][-1] == 'nothing'
    content = json.loads(as_json(found, 'configs/x.py'))
    assert [way['fits'] for way in content['ways']] == [True] * 4 + [False] * 2
    assert [way['seconds'] for way in content['ways']] == [pytest.approx(0.01)] * 6
    unknown = compared(config(freeze_vit=True), None)
    assert {each.estimate.fits for each in unknown.predictions} == {None} and not unknown.advice


def test_what_nothing_fits_gets_a_way_out(peaks):
    for memory, advice in ((7, 'LoRA r=16, int8 base with data.samples_per_gpu=1 and '
                               '--total-batch 2: 3.0 GiB'),
                           (2, 'LoRA r=16, int8 base on a GPU of 7.2 GiB or more')):
        found = compared(config(freeze_vit=True), memory * GIB)
        assert found.advice == advice
        assert table(found, 'x').splitlines()[-1] == f'nothing fits; what would: {advice}'


def test_ways_that_cannot_be_are_named_with_the_reason(peaks):
    peaks.update({'DoRA r=4, bf16 base': 1})
    found = compared(config(adapt=dict(type='lora', r=4, use_dora=True)))
    assert [each.way.name for each in found.predictions] == [
        NAMES[0], 'DoRA r=4, bf16 base', *NAMES[3:]]
    assert 'DoRA' in found.refused['DoRA r=4, int8 base']
    assert 'DoRA r=4, int8 base: ' in table(found, 'x')


def test_a_backbone_of_another_package_is_refused():
    cfg = config()
    cfg.model.backbone.type = 'ResNet'
    with pytest.raises(InputError, match="--compare with model.backbone.type='ResNet'"):
        compared(cfg)


@pytest.mark.slow
def test_several_gpus_shard_what_is_trained_for_the_most_part():
    found = compared(config(train_last=1), ranks=2)
    engines = {each.way.name: each.estimate.engine for each in found.predictions}
    assert engines == {**dict.fromkeys(engines, 'ddp'), NAMES[4]: 'fsdp2', NAMES[5]: 'fsdp2'}


@pytest.mark.slow
def test_the_page_of_the_docs_is_what_is_printed():
    text = (ROOT / 'docs/doctor.md').read_text()
    shown = next(block for block in text.split('```none\n') if block.startswith('configs/'))
    shown = shown.partition('\n```')[0]
    name = shown.partition('\n')[0]
    assert f'python tools/doctor.py {name} --gpu-memory 24 --tflops 150 --compare\n' in text
    options = RunOptions(device='cuda')
    cfg, _ = resolve_config(load_config(str(ROOT / name)), options)
    assert table(compare(cfg, options, 1, 24 * GIB, tflops=150), name) == shown


@pytest.mark.slow
@pytest.mark.parametrize('recipe, images, limits', [
    (PROBE, 1, [12, 32, 22, 32]), (FULL, 2, [32, 46, 46, 46])])
def test_a_part_of_the_6b_network_is_trained_on_one_card(recipe, images, limits):
    """A crop of 504 pixels with the linear head; two with UPerNet, whose batch norm needs them."""
    cfg = load_config(str(ROOT / 'configs/intern_vit_6b' / recipe))
    for way, limit in zip(ways_of(cfg), limits):
        shape = RunShape('cuda', 1, images, (504, 504), memory=memory_for(limit * GIB))
        traces, forms = Traces(way.cfg, shape), [False] if way.kind == FROZEN else [True, False]
        found = [traces.estimate(Engine('single'), recomputing)[0] for recomputing in forms]
        print(f'{way.name}, {images} of 504x504:', *(f'{each.peak / GIB:.1f}' for each in found))
        assert all(fits(each, shape) for each in found)
