"""Predicted peaks against those of real steps: on the CPU by resident memory, on GPUs by torch."""
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from helpers.commands import ROOT
from helpers.tiny_networks import segmentor_config
from mmcv import Config
from mmseg.models import build_segmentor

from mmseg_custom.distributed.memory import FRAGMENTATION, RESERVE, state_bytes
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.doctor import memory
from mmseg_custom.doctor.depth import EDGE, stretches_of, traced_networks
from mmseg_custom.doctor.kernels import PRODUCT, Kernel
from mmseg_custom.doctor.memory import estimate, estimate_on_demand, predict
from mmseg_custom.doctor.recomputation import MARGIN
from mmseg_custom.doctor.run_shape import RunShape, run_shape_of
from mmseg_custom.engine.build import build_network
from mmseg_custom.engine.config import load_config
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import prepare_run
from mmseg_custom.errors import InputError
from mmseg_custom.units import GIB, MIB

CROP = (112, 112)
NORM = dict(type='SyncBN', requires_grad=True)
OPTIMIZER = dict(type='AdamW', lr=1e-4)


def segmentor(width: int, head: str, frozen: bool = False, with_cp: bool = True,
              depth: int = 6, **backbone) -> dict:
    """A backbone of ``depth`` blocks with a linear head, or with UPerNet and an auxiliary head."""
    upernet = head == 'upernet'
    heads = dict(num_classes=150, **(dict(channels=64, norm_cfg=NORM) if upernet
                                     else dict(with_norm=True)))
    return segmentor_config(
        head, 'EncoderDecoder', heads, embed_dim=width, depth=depth, num_heads=width // 64,
        img_size=CROP[0], pretrain_size=CROP[0], with_cp=with_cp, freeze_vit=frozen,
        **dict(dict(out_indices=[1, 2, 3, 5] if upernet else [depth - 1]), **backbone))


def config(model: dict, images: int, engine: str) -> Config:
    return Config(dict(
        model=model, optimizer=OPTIMIZER, engine=dict(type=engine),
        custom_hooks=[dict(type='ToBFloat16Hook', priority=49)],
        data=dict(samples_per_gpu=images, workers_per_gpu=0,
                  train=dict(pipeline=[dict(type='Pad', size=CROP)]))))


FULL, DEEP = dict(width=512, head='linear'), dict(width=384, head='linear', with_cp=False)
LINEAR, HEAD = (dict(width=1024, head='linear', frozen=True),
                dict(width=256, head='upernet', frozen=True))
LORA = dict(width=768, head='linear', adapt=dict(type='lora'))
LAST = dict(width=768, head='linear', train_last=2)
CASES = {  # name -> (model, images, engine, processes)
    'full tuning, one process': (FULL, 8, 'single', 1),
    'full tuning, sharded': (FULL, 8, 'fsdp2', 2),
    'full tuning, ddp': (FULL, 8, 'ddp', 2),
    'without checkpointing': (DEEP, 8, 'single', 1),
    'without checkpointing, sharded': (DEEP, 8, 'fsdp2', 2),
    'without checkpointing, ddp': (DEEP, 8, 'ddp', 2),
    'linear probing': (LINEAR, 24, 'single', 1),
    'linear probing, ddp': (LINEAR, 24, 'ddp', 2),
    'linear probing, sharded': (LINEAR, 24, 'fsdp2', 2),
    'head tuning': (HEAD, 16, 'single', 1),
    'head tuning, ddp': (HEAD, 16, 'ddp', 2),
    'head tuning, sharded': (HEAD, 16, 'fsdp2', 2),
    'LoRA': (LORA, 24, 'single', 1),
    'LoRA, ddp': (LORA, 24, 'ddp', 2),
    'LoRA, sharded': (LORA, 24, 'fsdp2', 2),
    'LoRA in two blocks, without checkpointing': (
        dict(LORA, with_cp=False, adapt=dict(type='lora', blocks=[2, 4])), 16, 'single', 1),
    'LoRA over int8': (dict(LORA, frozen_dtype='int8'), 24, 'single', 1),
    'LoRA over int8, without checkpointing': (
        dict(LORA, frozen_dtype='int8', with_cp=False), 8, 'single', 1),
    'DoRA': (dict(LORA, adapt=dict(type='lora', use_dora=True)), 24, 'single', 1),
    'last blocks': (LAST, 24, 'single', 1),
    'last blocks, ddp': (LAST, 24, 'ddp', 2),
    'last blocks, sharded': (LAST, 24, 'fsdp2', 2),
    'last blocks and norms': (dict(LAST, train_norms=True), 24, 'single', 1),
    'last blocks over int8, without checkpointing': (
        dict(LAST, frozen_dtype='int8', with_cp=False), 16, 'single', 1),
}
QUICK = ['head tuning']
ON_GPU = 8  # times as many images


def measure(names: list[str]) -> dict[str, int]:
    """Peaks of real steps, in bytes."""
    cases = []
    for name in names:
        model, images, engine, ranks = CASES[name]
        cases.append(f'{name}=' + json.dumps(dict(
            model=segmentor(**model), crop=CROP, images=images, engine=engine, ranks=ranks,
            optimizer=OPTIMIZER)))
    done = subprocess.run(
        [sys.executable, 'tests/helpers/peaks.py', *cases], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, check=True,
        env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests', 'OMP_NUM_THREADS': '1',
             'MALLOC_ARENA_MAX': '1', 'MALLOC_MMAP_THRESHOLD_': '65536'})
    return json.loads(done.stdout.splitlines()[-1])


def predicted(name: str, device: str = 'cpu', times: int = 1):
    """The prediction for a case with so many times as many images."""
    model, images, engine, ranks = CASES[name]
    images *= times
    cfg = config(segmentor(**model), images, engine)
    return chosen(predict(cfg, shape_of(cfg, device, ranks)))


def shape_of(cfg: Config, device: str, ranks: int) -> RunShape:
    return run_shape_of(prepare_run(cfg, RunOptions(device=device), (), ranks), None)


def chosen(estimates):
    return next(each for each in estimates if each.chosen)


def check(names: list[str]) -> None:
    for name, peak in measure(names).items():
        expected = predicted(name).peak
        assert expected == pytest.approx(peak, rel=0.1), (
            f'{name}: predicted {expected / MIB:.0f}, measured {peak / MIB:.0f} MiB')


@pytest.mark.slow
def test_predicts_the_peak_of_a_real_step():
    check(QUICK)


@pytest.mark.slow
def test_predicts_the_peak_of_every_strategy():
    check([name for name in CASES if name not in QUICK])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('name', [name for name in CASES if CASES[name][2] == 'single'])
def test_predicts_the_peak_on_a_gpu(name):
    """With more images than on the CPU: workspaces of the libraries take tens of MiB there.

    UPerNet may take more: cuDNN chooses among convolutions whose workspaces are of any size.
    """
    model, images, _, _ = CASES[name]
    images *= ON_GPU
    expected = predicted(name, 'cuda', ON_GPU).peak
    torch._C._cuda_clearCublasWorkspaces()  # that of earlier tests in this process
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    network = build_segmentor(config(segmentor(**model), images, 'single').model)
    apply_precision(network, torch.bfloat16, 'cuda')
    network.cuda().train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    for _ in range(3):
        batch = dict(img=torch.randn(images, 3, *CROP, device='cuda'), img_metas=[{}] * images,
                     gt_semantic_seg=torch.randint(150, (images, 1, *CROP), device='cuda'))
        optimizer.zero_grad()
        network.train_step(batch, optimizer)['loss'].backward()
        optimizer.step()
    measured = torch.cuda.max_memory_allocated() - before
    assert expected < 1.1 * measured
    assert 'upernet' in model.values() or 0.9 * measured < expected


def test_parts_are_those_of_the_weights():
    cfg = config(segmentor(64, 'linear', depth=2), 2, 'fsdp2')
    estimates = predict(cfg, RunShape('cuda', 4, 2, CROP, memory=80 * GIB))
    names = [each.name for each in estimates]
    assert names == ['ddp + checkpointing', 'ddp', 'fsdp2 + checkpointing', 'fsdp2',
                     'fsdp2 + offload + checkpointing', 'fsdp2 + offload']
    assert chosen(estimates).name == 'fsdp2 + checkpointing'
    model = build_segmentor(cfg.model)
    count = sum(p.numel() for p in model.parameters())
    by_name = dict(zip(names, estimates))
    whole, sharded = by_name['ddp'], by_name['fsdp2']
    assert whole.parts['master weights'] == whole.parts['gradients'] == 4 * count
    assert whole.parts['optimizer'] == pytest.approx(8 * count, rel=0.01)
    assert sharded.parts['master weights'] == pytest.approx(count, rel=0.1)  # padded
    offloaded = by_name['fsdp2 + offload']
    assert offloaded.parts['master weights'] == offloaded.parts['optimizer'] == 0
    assert offloaded.host == pytest.approx(4 * count, rel=0.1)
    assert by_name['ddp + checkpointing'].parts['activations'] < whole.parts['activations']
    products = Kernel(PRODUCT, torch.bfloat16)
    again = [by_name[name].flops[products] for name in ('ddp + checkpointing', 'ddp')]
    assert again[0] == pytest.approx(4 / 3 * again[1], rel=0.06)  # the forward pass twice
    assert all(each.fits for each in estimates)


def queried(blocks: int, **backbone) -> dict:
    """A backbone whose last blocks queries pass."""
    model = segmentor(64, 'linear', **backbone)
    return dict(model, type='InternViTSegmentor', decode_head=dict(
        type='PlainMaskHead', blocks='backbone', num_blocks=blocks, in_channels=64, channels=48,
        num_classes=150, num_queries=30, num_upscalings=1, num_points=256))


@pytest.mark.slow
@pytest.mark.parametrize('engine, with_cp, options, backbone', [
    ('ddp', True, dict(checkpoint_every=2), {}),
    ('ddp', False, dict(checkpoint_every=2), {}),
    ('fsdp2', True, dict(checkpoint_every=2), {}),
    ('fsdp2', False, {}, {}),
    ('ddp', True, dict(checkpoint_blocks=20), {}),
    ('fsdp2', True, dict(checkpoint_blocks=20, reshard_after_forward=False), {}),
    ('fsdp2', True, dict(checkpoint_blocks=0, reduce_dtype='bf16'), {}),
    ('single', True, {}, dict(adapt=dict(type='lora', r=4))),
    ('single', False, {}, dict(adapt=dict(type='lora', r=4), frozen_dtype='int8')),
    ('fsdp2', True, dict(checkpoint_blocks=20), dict(adapt=dict(type='lora', use_dora=True))),
    ('ddp', True, {}, dict(adapt=dict(type='lora', blocks=[*range(16), 38]))),
    ('single', True, {}, dict(train_last=4)),
    ('single', False, {}, dict(train_last=4, frozen_dtype='int8')),
    ('fsdp2', True, dict(checkpoint_blocks=1), dict(train_last=20)),
    ('ddp', True, {}, dict(train_last=3, train_norms=True)),
    ('single', True, {}, dict(freeze_vit=True, unfreeze_pos_embed=True))])
def test_few_shallow_networks_tell_what_a_deep_one_takes(engine, with_cp, options, backbone,
                                                         monkeypatch):
    model = segmentor(64, 'upernet', depth=40, out_indices=[2, 15, 28, 38], **backbone)
    compare_with_all_blocks(model, engine, with_cp, options, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize('engine, with_cp, options, backbone', [
    ('single', True, {}, {}),
    ('fsdp2', True, dict(checkpoint_blocks=37), {}),
    ('ddp', False, {}, dict(train_last=20)),
    ('single', False, {}, dict(adapt=dict(type='lora', r=4), frozen_dtype='int8')),
    ('fsdp2', True, dict(checkpoint_blocks=19), dict(train_last=20))])
def test_blocks_that_queries_pass_are_not_left_out(engine, with_cp, options, backbone, monkeypatch):
    model = queried(3, depth=40, out_indices=[38], **backbone)
    compare_with_all_blocks(model, engine, with_cp, options, monkeypatch)


def test_a_head_of_few_queries_is_estimated():
    model = queried(1, depth=2)
    model['decode_head'].update(num_queries=4)
    assert estimate(config(model, 1, 'single'), RunShape('cpu', 1, 1, CROP), Engine('single'),
                    False)[0].peak > 0


def compare_with_all_blocks(model: dict, engine: str, with_cp: bool, options: dict, monkeypatch):
    """Compares the prediction from shallow networks with that from the whole one."""
    cfg = config(model, 2, engine)  # the last block is not read
    cfg.engine.update(options)
    shape, kind = RunShape('cuda', 4 if engine != 'single' else 1, 2, CROP), Engine(**cfg.engine)
    networks = traced_networks(stretches_of(cfg, kind, with_cp), kind.every_kth, EDGE)
    assert networks is not None
    extrapolated = estimate(cfg, shape, kind, with_cp)
    monkeypatch.setattr(memory, 'traced_networks', lambda *_: None)
    traced = estimate(cfg, shape, kind, with_cp)
    for a, b in zip(extrapolated, traced, strict=True):
        assert a.when == b.when and a.host == b.host
        assert a.peak == pytest.approx(b.peak, rel=0.01)
        assert sum(a.flops.values()) == pytest.approx(sum(b.flops.values()), rel=0.001)
        # Seen with every second block under FSDP2: 3.2 % off, and 2.3 % where queries pass the last
        # ones; only times read it.
        rough = kind.every_kth > 1 or 'blocks' in model['decode_head']
        assert a.moved_bytes == pytest.approx(b.moved_bytes, rel=0.04 if rough else 0.01)


@pytest.mark.slow
def test_the_memory_decides_how_many_blocks_are_recomputed():
    cfg, engine = config(segmentor(64, 'linear', depth=9), 8, 'single'), Engine(
        'single', checkpoint_every='auto')
    shape = RunShape('cuda', 1, 8, CROP)
    everything, = estimate_on_demand(cfg, shape, engine)
    kept, = estimate(cfg, shape, engine, False)
    assert everything.blocks == 9 and kept.peak > everything.peak
    between = (kept.peak + everything.peak) // 2
    room = int((between + MARGIN + RESERVE) / (1 - FRAGMENTATION)) + 1
    found, = estimate_on_demand(cfg, replace(shape, memory=room), engine)
    assert found.name == f'single + checkpointing of {found.blocks} blocks'
    assert 0 < found.blocks < 9 and found.peak <= between
    assert sum(kept.flops.values()) < sum(found.flops.values()) < sum(everything.flops.values())


@pytest.mark.slow
def test_the_doctor_decides_as_the_run():
    cfg = config(segmentor(64, 'linear', depth=9), 8, 'single')
    cfg.engine.checkpoint_every = 'auto'
    estimates = predict(cfg, RunShape('cuda', 1, 8, CROP, memory=80 * GIB))
    assert chosen(estimates).name == 'single + checkpointing of 0 blocks'
    assert [each.peak for each in estimates[:2]] == [estimates[0].peak] * 2


def test_gathered_weights_are_kept_and_gradients_reduced_as_asked():
    cfg = config(segmentor(256, 'linear', depth=6), 1, 'fsdp2')  # peaks in the backward pass
    shape = RunShape('cuda', 4, 1, CROP)
    usual, kept, reduced = (estimate(cfg, shape, Engine('fsdp2', **options), True)[0]
                            for options in (dict(), dict(reshard_after_forward=False),
                                            dict(reduce_dtype='bf16')))
    model = build_segmentor(cfg.model)
    block = 2 * sum(p.numel() for p in model.backbone.blocks[0].parameters())  # bytes
    # Six blocks and the head, which is less than a block, but for those that are in use anyhow.
    assert 3 * block < kept.parts['weights'] - usual.parts['weights'] < 7 * block
    assert reduced.parts['workspace'] < usual.parts['workspace'] and reduced.peak < usual.peak


def test_a_feature_cache_spares_the_backbone():
    cfg = config(segmentor(64, 'upernet', frozen=True), 2, 'single')
    usual = chosen(predict(cfg, RunShape('cuda', 1, 2, CROP)))
    cfg.feature_cache = dict(dir='/there')
    run = prepare_run(cfg, RunOptions(device='cuda', no_validate=True), (), 1)
    shape = run_shape_of(run, None)
    assert shape.cached == torch.bfloat16 and not shape.has_blocks
    cached, = predict(cfg, shape)
    blocks = sum(p.numel() for p in build_segmentor(cfg.model).backbone.blocks.parameters())
    assert usual.parts['weights'] - cached.parts['weights'] == 2 * blocks
    assert Kernel(PRODUCT, torch.bfloat16) in usual.flops
    assert Kernel(PRODUCT, torch.bfloat16) not in cached.flops
    validating, = predict(cfg, replace(shape, has_blocks=True))
    assert validating.parts['weights'] == usual.parts['weights']


@pytest.mark.slow
def test_a_feature_cache_leaves_the_trained_blocks():
    cfg = config(segmentor(64, 'upernet', train_last=2, with_cp=False), 2, 'single')
    usual, = estimate(cfg, RunShape('cuda', 1, 2, CROP), Engine('single'), False)
    cfg.feature_cache = dict(dir='/there')
    shape = run_shape_of(prepare_run(cfg, RunOptions(device='cuda', no_validate=True), (), 1), None)
    cached, = estimate(cfg, shape, Engine('single'), False)
    frozen = sum(p.numel() for p in build_segmentor(cfg.model).backbone.blocks[:4].parameters())
    assert usual.parts['weights'] - cached.parts['weights'] == 2 * frozen
    assert usual.parts['master weights'] == cached.parts['master weights']
    products = Kernel(PRODUCT, torch.bfloat16)  # six passes of blocks instead of ten
    assert cached.flops[products] / usual.flops[products] == pytest.approx(6 / 10, rel=0.02)
    validating, = estimate(cfg, replace(shape, has_blocks=True), Engine('single'), False)
    assert validating.parts['weights'] == usual.parts['weights']


@pytest.mark.slow
@pytest.mark.parametrize('backbone', [
    dict(adapt=dict(type='lora', r=4)), dict(adapt=dict(type='lora', blocks=[1, 3], use_dora=True)),
    dict(adapt=dict(type='lora', r=4), frozen_dtype='int8'),
    dict(train_last=2), dict(train_last=2, train_norms=True)], ids=str)
def test_states_are_those_of_partly_trained_backbones(backbone):
    cfg = config(segmentor(64, 'linear', **backbone), 2, 'single')
    model = build_network(cfg, on_meta=True)
    for engine, ranks in (('single', 1), ('fsdp2', 2)):
        if engine == 'fsdp2' and 'frozen_dtype' in backbone:
            continue
        found = estimate(cfg, RunShape('cuda', ranks, 2, CROP), Engine(engine), True)[0]
        states = state_bytes(model, engine, ranks)
        assert found.parts['master weights'] == pytest.approx(states.master_weights, rel=0.02)
        assert found.parts['optimizer'] in (0, pytest.approx(states.optimizer, rel=0.02))
        if engine == 'single':
            assert found.parts['weights'] == pytest.approx(
                states.frozen, abs=states.working + MIB / 100)


def test_low_memory_optimizer_halves_the_master_weights():
    cfg = config(segmentor(64, 'linear', depth=2), 2, 'ddp')
    shape = RunShape('cuda', 2, 2, CROP)
    usual, = estimate(cfg, shape, Engine('ddp'), True)
    cfg.optimizer = dict(type='LowMemoryAdamW', lr=1e-4)
    low, = estimate(cfg, shape, Engine('ddp'), True)
    backbone = sum(p.numel() for p in build_segmentor(cfg.model).backbone.parameters())
    for part in ('master weights', 'gradients'):
        assert usual.parts[part] - low.parts[part] == 2 * backbone
    assert low.parts['optimizer'] == pytest.approx(usual.parts['optimizer'] / 4, rel=0.05)


@pytest.mark.parametrize('frozen', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_states_are_those_of_the_recipes(frozen):
    kind = 'linear_probing' if frozen else 'full_tuning'
    path, = (ROOT / 'configs/intern_vit_300m' / kind).glob('*_504_80k_ade20k_*')
    cfg = load_config(str(path))
    for ranks in (32,) if frozen else (1, 32):
        engine = 'ddp' if frozen else 'single' if ranks == 1 else 'fsdp2'
        shape = shape_of(cfg, 'cuda', ranks)
        predicted, *_ = estimate(cfg, shape, Engine(engine), True)
        states = state_bytes(build_network(cfg, on_meta=True), engine, ranks)
        assert predicted.parts['master weights'] == pytest.approx(states.master_weights, rel=0.02)
        if predicted.when != 'start':
            assert predicted.parts['optimizer'] == pytest.approx(states.optimizer, rel=0.02)


def test_what_does_not_run_is_an_error():
    cfg = config(segmentor(64, 'linear', depth=2), 2, 'single')
    with pytest.raises(ValueError, match='multiples of the 14-pixel patch'):
        predict(cfg, RunShape('cpu', 1, 2, (100, 112)))
    cfg.engine = dict(type='deepspeed')
    with pytest.raises(InputError, match="engine.type='deepspeed'"):
        predict(cfg, RunShape('cpu', 1, 2, CROP))
