"""Adapters and last blocks train alike in one process, under DDP and FSDP2: helpers/traces.py."""
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from helpers.trace_runs import Traces, assert_same
from mmseg.models import build_segmentor
from torch import nn
from torch._dynamo.utils import counters

from mmseg_custom.distributed import precision
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import choose_engine, parallelize
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.training_mode import TrainingMode, modes_of
from mmseg_custom.shards import own_shard

KINDS = dict(
    lora=dict(adapt=dict(type='lora', r=4)),
    dora=dict(adapt=dict(type='lora', r=4, use_dora=True, blocks=[1, 3])),
    last_blocks=dict(train_last=2),
    norms=dict(train_last=1, train_norms=True))
INT8 = dict(frozen_dtype='int8')
ENGINES = dict(one=dict(engine='single'), ddp=dict(ranks=2, engine='ddp'),
               fsdp2=dict(ranks=2, engine='fsdp2'))
RUNS = {}
for _kind, _backbone in KINDS.items():
    for _engine, _options in ENGINES.items():
        _options = dict(_options, iters=4, norm=False, backbone=_backbone)
        RUNS[f'{_kind}_{_engine}'] = _options
        RUNS[f'{_kind}_{_engine}_added_up'] = dict(_options, accumulation=2, checkpoint_every=2)
        RUNS[f'{_kind}_{_engine}_in_bfloat16'] = dict(_options, dtype='bfloat16', native=True)
        RUNS[f'{_kind}_{_engine}_rounded'] = dict(_options, dtype='bfloat16')
        RUNS[f'{_kind}_{_engine}_int8'] = dict(_options, backbone=dict(_backbone, **INT8))


@pytest.fixture(scope='module')
def traces(zygote, tmp_path_factory) -> Traces:
    zygote.import_once('peft')
    return Traces(zygote, tmp_path_factory.mktemp('traces'), RUNS)


def of_each(*engines: str) -> list:
    return [(kind, engine) for kind in KINDS for engine in engines]


@pytest.mark.slow
@pytest.mark.parametrize('kind, engine', of_each('ddp', 'fsdp2'))
def test_engines_train_alike(traces, kind, engine):
    losses = traces[f'{kind}_one']['losses']
    assert losses[-1] < losses[0]
    assert_same(traces, f'{kind}_one', f'{kind}_{engine}')


@pytest.mark.slow
@pytest.mark.parametrize('kind, engine', of_each('one', 'ddp', 'fsdp2'))
def test_the_way_to_the_batch_changes_nothing(traces, kind, engine):
    assert_same(traces, f'{kind}_one', f'{kind}_{engine}_added_up')


@pytest.mark.slow
@pytest.mark.parametrize('arithmetic', ['in_bfloat16', 'rounded'])
@pytest.mark.parametrize('kind, engine', of_each('ddp', 'fsdp2'))
def test_bfloat16_trains_alike(traces, kind, engine, arithmetic):
    """On a base in bfloat16, with master weights in float32: limits as for full tuning."""
    a, b = traces[f'{kind}_one_{arithmetic}'], traces[f'{kind}_{engine}_{arithmetic}']
    assert a['losses'] != traces[f'{kind}_one']['losses']
    torch.testing.assert_close(b['losses'], a['losses'], rtol=2e-2, atol=0)
    for name, tensor in a['state_dict'].items():
        torch.testing.assert_close(b['state_dict'][name], tensor, rtol=0.1, atol=4e-2)
        assert b['state_dict'][name].dtype == tensor.dtype, name
    dtypes = {tensor.dtype for name, tensor in b['state_dict'].items() if 'lora_' in name}
    assert dtypes == ({torch.float32} if 'adapt' in KINDS[kind] else set())
    assert b['state_dict']['backbone.patch_embed.proj.weight'].dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['lora', 'last_blocks', 'norms'])
def test_a_base_of_8_bits_trains_alike_in_two_processes(traces, kind):
    assert_same(traces, f'{kind}_one_int8', f'{kind}_ddp_int8')
    assert traces[f'{kind}_one_int8']['losses'] != traces[f'{kind}_one']['losses']
    name = 'backbone.blocks.0.attn.qkv.weight'
    assert traces[f'{kind}_ddp_int8']['state_dict'][name].dtype == torch.int8


def segmentor(depth: int = 5, **backbone) -> nn.Module:
    """A network whose adapters, if it has some, change what it computes."""
    torch.manual_seed(0)
    model = build_segmentor(segmentor_config(
        'linear', img_size=28, depth=depth, out_indices=[depth - 1], drop_path_rate=0.5,
        **backbone))
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            nn.init.normal_(parameter, std=0.02)
    return model


def step(dtype: torch.dtype, engine: Engine, **backbone) -> dict[str, torch.Tensor]:
    """The loss and the gradients, by name, of a training step with dropout and drop path."""
    model = segmentor(**backbone)
    apply_precision(model, dtype, store=engine.type != 'fsdp2')
    wrapped = parallelize(model, 'cpu', engine).train()
    torch.manual_seed(1)
    batch = dict(img=torch.randn(3, 3, 28, 28), gt_semantic_seg=torch.ones(3, 1, 28, 28).long(),
                 img_metas=[{}] * 3)
    loss = wrapped.train_step(batch, None)['loss']
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    return dict({name: own_shard(grad) for name, grad in gradients.items()}, loss=loss.detach())


DROPPED = dict(adapt=dict(type='lora', r=4, dropout=0.3, blocks=[2, 4]))


@pytest.mark.parametrize('backbone', [DROPPED, dict(train_last=3)])
def test_recomputed_blocks_give_the_same_bits(backbone):
    kept = step(torch.float32, Engine('single'), with_cp=False, **backbone)
    moved = [name for name, value in kept.items() if value.abs().sum() > 0]
    assert 'loss' in moved and len(moved) > len(kept) / 2  # drop path may leave a block out
    for options in (dict(), dict(checkpoint_every=2), dict(checkpoint_blocks=1)):
        found = step(torch.float32, Engine('single', **options), with_cp=True, **backbone)
        assert found.keys() == kept.keys()
        assert all(torch.equal(found[name], value) for name, value in kept.items()), options


@pytest.mark.parametrize('backbone', [DROPPED, dict(train_last=2, train_norms=True)])
def test_a_process_alone_computes_the_same_under_all_engines(process_group, backbone):
    """A frozen base in bfloat16 and float32 weights in a group of FSDP2's; the same gradients."""
    expected = step(torch.bfloat16, Engine('single'), **backbone)
    assert {value.dtype for value in expected.values()} == {torch.float32}
    for kind in ('ddp', 'fsdp2'):
        found = step(torch.bfloat16, Engine(kind), **backbone)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=2e-2, atol=2e-3,
                                       msg=lambda text, name=name: f'{name}: {text}')


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['single', 'fsdp2'])
@pytest.mark.parametrize('backbone', [
    dict(adapt=dict(type='lora', r=4)), dict(train_last=1, train_norms=True)])
def test_compiled_blocks_train_alike(process_group, kind, backbone):
    """Machine code by Inductor, with activation checkpointing and drop path."""
    torch._dynamo.reset()
    counters.clear()
    with torch._inductor.config.patch(compile_threads=1):
        compiled = step(torch.float32, Engine(kind, compile=True), depth=3, **backbone)
    assert counters['stats']['unique_graphs'] > 0
    plain = step(torch.float32, Engine(kind), depth=3, **backbone)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-5,
                                   msg=lambda text, name=name: f'{name}: {text}')


def test_modes_of_blocks():
    """What stands before the first trained block stays in eval mode."""
    for backbone, trained in ((DROPPED, [2, 3, 4]), (dict(train_last=2), [3, 4]),
                              (dict(train_last=1, train_norms=True), [0, 1, 2, 3, 4])):
        model, mode = segmentor(**backbone).eval(), TrainingMode()
        mode.enter(model)
        assert [i for i in range(5) if model.backbone.blocks[i].training] == trained
        assert not model.backbone.patch_embed.training and model.decode_head.training
        before = modes_of(model)
        mode.enter(model.eval())
        assert modes_of(model) == before


@pytest.mark.parametrize('backbone, kind', [
    (dict(adapt=dict(type='lora', r=4)), 'ddp'), (dict(train_last=2), 'ddp'),
    (dict(train_last=1, train_norms=True), 'ddp'), (dict(train_last=3), 'fsdp2')])
def test_which_engine_is_chosen(monkeypatch, backbone, kind):
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    assert choose_engine(Engine(), segmentor(**backbone)) == kind


def test_what_fsdp2_stores_and_gathers(process_group, monkeypatch):
    """The base is never stored in float32, and adapters are gathered in its dtype."""
    monkeypatch.setattr(precision, 'is_fast_on_cpu', lambda dtype: True)
    model = segmentor(**DROPPED)
    apply_precision(model, torch.bfloat16, store=False)
    parallelize(model, 'cpu', Engine('fsdp2'))
    for i, block in enumerate(model.backbone.blocks):
        stored = {name: p.to_local().dtype for name, p in block.named_parameters()}
        assert {name for name, dtype in stored.items() if dtype == torch.float32} == {
            name for name, p in block.named_parameters() if p.requires_grad}
        assert any('lora_' in name for name in stored) == (i in (2, 4))
        group = block._get_fsdp_state()._fsdp_param_group
        assert group.unshard_in_backward == (i >= 2)  # the backward pass ends there
        group.lazy_init()
        group.unshard()
        group.wait_for_unshard()
        assert {p.dtype for p in block.parameters()} == {torch.bfloat16}
        group.reshard()
