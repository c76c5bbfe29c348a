"""Frozen backbones of 8 bits, from the file to checkpoints, sweeps, caches and tests."""
import json
import os

import pytest
import torch
from helpers.data import prepare
from helpers.logs import logged
from helpers.runs import write_small_linear
from torch import nn

from benchmarks.cases.frozen_dtype import peak_of_load, write_weights
from benchmarks.processes import call_in_process
from mmseg_custom.checkpoint import load_segmentor, save_checkpoint
from mmseg_custom.checkpoint.checkpoint import open_checkpoint
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.checkpoint.metadata import trained_state_dict
from mmseg_custom.checkpoint.segmentor import read_checkpoint
from mmseg_custom.distributed.memory import state_bytes
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import choose_engine, unwrap
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.doctor.fake_step import trace_step
from mmseg_custom.doctor.run_shape import run_shape_of
from mmseg_custom.engine.build import build_model, build_network
from mmseg_custom.engine.cached.key import describe, differences
from mmseg_custom.engine.frozen_dtype import check_head_fits, map_errors
from mmseg_custom.engine.sweep.backbone import SharedBackbone
from mmseg_custom.errors import InputError
from mmseg_custom.feature_cache import FeatureCache, RecordLayout
from mmseg_custom.feature_cache.manage import summarize
from mmseg_custom.layers.quantized_linear import quantized_layers
from mmseg_custom.models import InternViT6B

TINY = dict(embed_dim=64, depth=3, num_heads=2, img_size=56, out_indices=[0, 2], freeze_vit=True)
KINDS = ('int8', 'fp8')
KEY = 'model.backbone.frozen_dtype'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with data, a config and the weights of its backbone."""
    folder = tmp_path_factory.mktemp('frozen_dtype')
    write_small_linear(folder)
    return folder


def prepared(folder, kind: str | None, **options):
    return prepare(folder / 'config.py', ['train'], {KEY: kind},
                   work_dir=str(folder / 'work'), seed=3, **options)


def built(folder, kind: str | None) -> nn.Module:
    torch.manual_seed(0)
    return unwrap(build_model(prepared(folder, kind)))


def maps(backbone: nn.Module) -> list[torch.Tensor]:
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    return backbone.frozen_features(images)


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize('kind', KINDS)
def test_all_ways_of_loading_give_the_same_feature_maps(kind, tmp_path):
    path = str(tmp_path / 'backbone.pth')
    plain = InternViT6B(**TINY)
    torch.save(plain.state_dict(), path)
    rounded = InternViT6B(**TINY, frozen_dtype=kind, pretrained=path)
    by_torch = InternViT6B(**TINY, frozen_dtype=kind)
    by_torch.load_state_dict(torch.load(path))
    shared = InternViT6B(**TINY, frozen_dtype=kind, pretrained=rounded)
    assert len(quantized_layers(rounded)) == 4 * TINY['depth']
    assert equal(maps(rounded), maps(by_torch)) and equal(maps(rounded), maps(shared))
    for found, exact in zip(maps(rounded), maps(plain)):
        assert 0 < (found - exact).norm() / exact.norm() < 0.03
    for found, (x, y) in zip(map_errors(rounded, torch.ones(1, 3, 56, 56)),
                             zip(*(net.frozen_features(torch.ones(1, 3, 56, 56))
                                   for net in (rounded, plain)))):
        assert found == pytest.approx(float((x - y).norm() / y.norm()))


@pytest.mark.parametrize('kind', KINDS)
def test_frozen_weights_take_half_the_memory(kind):
    with torch.device('meta'):
        plain, rounded = InternViT6B(freeze_vit=True), InternViT6B(freeze_vit=True,
                                                                   frozen_dtype=kind)
    sizes = [sum(t.nbytes for t in net.blocks.state_dict().values()) for net in (plain, rounded)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=2e-3)


def test_a_training_records_what_it_was_trained_on(folder, tmp_path):
    for kind in KINDS:
        with logged() as lines:
            model = built(folder, kind)
        assert any(f'frozen_dtype: {kind}' in line and 'not the conditions of published' in line
                   for line in lines)
        save_checkpoint(model, str(tmp_path / f'{kind}.pth'))
        checkpoint = open_checkpoint(str(tmp_path / f'{kind}.pth'))
        recorded = checkpoint.meta['frozen_dtype']
        assert recorded['dtype'] == kind and recorded['products'] == 'weights'
        assert list(recorded['map_errors']) == [1] and 0 < recorded['map_errors'][1] < 0.03
        assert all(name.startswith('decode_head.') for name in checkpoint.weights)
        # The record of the file is that of a plain run, so that its head goes with both.
        _, plain = trained_state_dict(built(folder, None))
        assert checkpoint.backbone_record == plain


@pytest.mark.parametrize('kind', KINDS)
def test_small_checkpoints_are_loaded_with_and_without_it(kind, folder, tmp_path):
    path, model = str(tmp_path / 'head.pth'), built(folder, kind)
    save_checkpoint(model, path)
    for other, expected in ((kind, model), (None, built(folder, None))):
        cfg = prepared(folder, other).cfg
        found = build_network(cfg, on_meta=True)
        apply_precision(found, torch.bfloat16)
        load_segmentor(found, path)
        assert equal(maps(found.backbone), maps(expected.backbone))
        assert torch.equal(found.decode_head.conv_seg.weight, model.decode_head.conv_seg.weight)
    by_mmcv = build_network(prepared(folder, kind).cfg)
    by_mmcv.load_state_dict(read_checkpoint(path)['state_dict'])
    assert equal(maps(by_mmcv.backbone), maps(model.backbone))
    merge(path, str(tmp_path / 'whole.pth'))
    whole = torch.load(tmp_path / 'whole.pth')
    original = torch.load(folder / 'backbone.pth')
    assert all(torch.equal(whole['state_dict'][f'backbone.{name}'], original[name])
               for name in original)
    assert whole['meta']['frozen_dtype']['dtype'] == kind


@pytest.mark.parametrize('kind', KINDS)
def test_a_backbone_of_no_file_is_saved_in_8_bits(kind, folder, tmp_path):
    path, cfg = str(tmp_path / 'whole.pth'), prepared(folder, kind).cfg
    model = build_network(cfg)
    save_checkpoint(model, path)
    found = build_network(cfg, on_meta=True)
    load_segmentor(found, path)
    assert equal(maps(found.backbone), maps(model.backbone))
    other = {'int8': 'fp8', 'fp8': 'int8'}[kind]
    with pytest.raises(InputError, match='another format of 8 bits'):
        load_segmentor(build_network(prepared(folder, other).cfg, on_meta=True), path)
    with pytest.raises(InputError, match='quantised weights do not load|does not fit the model'):
        load_segmentor(build_network(prepared(folder, None).cfg, on_meta=True), path)


def test_weights_of_8_bits_without_their_scales_are_refused(folder, tmp_path):
    model = build_network(prepared(folder, 'int8').cfg)
    state = {name: value for name, value in model.state_dict().items()
             if not name.endswith('weight_scale')}
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'whole.pth')
    with pytest.raises(InputError, match='weight_scale'):
        load_segmentor(model, str(tmp_path / 'whole.pth'))


@pytest.mark.parametrize('frozen_dtype', ['int8', None])
def test_weights_of_8_bits_are_no_pretrained_file(frozen_dtype, tmp_path):
    path = str(tmp_path / 'rounded.pth')
    torch.save(InternViT6B(**TINY, frozen_dtype='int8').state_dict(), path)
    with pytest.raises(InputError, match='are no pretrained file; name the one that'):
        InternViT6B(**TINY, frozen_dtype=frozen_dtype, pretrained=path)


def test_nan_in_a_file_is_found(folder, tmp_path):
    weights = torch.load(folder / 'backbone.pth')
    weights['blocks.1.mlp.fc1.weight'][3, 3] = float('nan')
    torch.save(weights, tmp_path / 'backbone.pth')
    run = prepare(folder / 'config.py', ['train'], {
        KEY: 'int8', 'model.backbone.pretrained': str(tmp_path / 'backbone.pth')},
        work_dir=str(tmp_path / 'work'), check_finite=True)
    with pytest.raises(InputError, match='blocks.1.mlp.fc1.weight'):
        build_model(run)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_load_never_holds_the_network_in_bfloat16(kind, tmp_path):
    depth, width = 12, 1280
    call_in_process(write_weights, str(tmp_path / 'backbone.pth'), depth, width)
    base, peak = (call_in_process(peak_of_load, path, depth, width, kind)
                  for path in ('', str(tmp_path / 'backbone.pth')))
    in_bfloat16 = 2 * 12 * width**2 * depth
    assert peak - base < 0.75 * in_bfloat16


def test_trained_backbones_are_refused():
    trained = dict(freeze_vit=False)
    with pytest.raises(InputError, match='freeze_vit=False.*freeze_vit=True'):
        InternViT6B(**{**TINY, **trained}, frozen_dtype='int8')
    with pytest.raises(InputError, match="expected one of 'int8', 'fp8'"):
        InternViT6B(**TINY, frozen_dtype='int4')


def test_fsdp2_is_refused(folder, monkeypatch):
    model = build_network(prepared(folder, 'int8').cfg)
    monkeypatch.setattr('mmseg_custom.distributed.parallelize.check_engine', lambda engine: None)
    with pytest.raises(InputError, match="fsdp2.*frozen_dtype='int8'.*auto, single or ddp"):
        choose_engine(Engine(type='fsdp2'), model)


def test_sweeps_compute_the_same_feature_maps(folder):
    run = prepared(folder, 'int8')
    shared = SharedBackbone(run, [0, 1])
    assert equal(maps(shared.network)[1:], maps(built(folder, 'int8').backbone))
    assert set(shared.network.frozen_record['map_errors']) == {0, 1}


def test_caches_of_other_frozen_dtypes_are_others(folder, tmp_path):
    keys = [describe(prepared(folder, kind), built(folder, kind), seed=0)
            for kind in (None, *KINDS)]
    assert 'frozen_dtype' not in keys[0]['backbone']  # caches from before this setting
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert differences(keys[one], keys[other]) == ['backbone.frozen_dtype']
    layout = RecordLayout(1, ((4, 2, 2),), (28, 28), 'bf16', 1)
    for key, words in zip(keys, ('bf16; ', 'bf16 of ')):
        cache = FeatureCache.of(str(tmp_path), key, layout)
        cache.begin(key, {})
        assert words in summarize(str(tmp_path), os.path.basename(cache.folder)).of


@pytest.mark.parametrize('kind', KINDS)
def test_the_doctor_counts_the_bytes_of_8_bits(kind, folder):
    run = prepared(folder, kind)
    model = built(folder, kind)
    expected = sum(t.nbytes for t in (*model.backbone.parameters(), *model.backbone.buffers()))
    assert state_bytes(model, 'single', 1).frozen == expected + sum(
        b.nbytes for b in model.decode_head.buffers())
    trace = trace_step(run.cfg, run_shape_of(run, None), Engine(type='single'), False,
                       1)
    assert trace.counts['frozen'] == sum(p.nbytes for p in model.backbone.parameters())


def test_a_head_on_other_feature_maps_is_warned_of(folder):
    model = build_network(prepared(folder, 'int8').cfg)
    with logged() as lines:
        check_head_fits(model, {'frozen_dtype': {'dtype': 'int8'}})
        assert not lines
        check_head_fits(model, {})
    assert "is 'int8', the checkpoint was trained with None" in lines[0]


@pytest.mark.slow
def test_training_and_test_say_it(folder, run_tool, tmp_path):
    code, out, _ = run_tool('train.py', folder / 'config.py', '--work-dir', tmp_path / 'work',
                            '--cfg-options', f'{KEY}=int8', '--device', 'cpu', '--seed', 1)
    assert code == 0, out
    assert 'Frozen weights' in (tmp_path / 'work' / 'README.md').read_text()
    code, out, _ = run_tool('test.py', tmp_path / 'work' / 'config.py',
                            tmp_path / 'work' / 'latest.pth', '--eval', 'mIoU', '--device', 'cpu',
                            '--work-dir', tmp_path / 'test')
    assert code == 0 and 'frozen weights in int8: not the conditions of published' in out
    results, = (tmp_path / 'test').glob('eval_*.json')
    assert json.loads(results.read_text())['frozen_dtype'] == 'int8'
    assert 'Frozen weights' in (tmp_path / 'test' / 'README.md').read_text()
