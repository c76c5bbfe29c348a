"""One process, DDP and FSDP2 are the same training: see helpers/traces.py."""
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from helpers.trace_runs import Traces, assert_same
from mmseg.models import build_segmentor
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.torch_version import TorchVersion

from mmseg_custom.distributed import parallelize
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import choose_engine
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.errors import InputError
from mmseg_custom.models import InternViT6B

RUNS = dict(
    one=dict(engine='single'),
    ddp=dict(ranks=2, engine='ddp'),
    fsdp2=dict(ranks=2),
    plain=dict(engine='single', norm=False, iters=3),
    added_up=dict(engine='single', norm=False, iters=3, accumulation=2, checkpoint_every=2),
    added_up_ddp=dict(ranks=2, engine='ddp', norm=False, iters=3, accumulation=2),
    added_up_fsdp2=dict(ranks=2, norm=False, iters=3, accumulation=2, prefetch=2,
                        checkpoint_every=2),
    unread=dict(ranks=2, norm=False, iters=3, accumulation=2, unread=1),
    rounded=dict(engine='single', dtype='bfloat16'),
    rounded_ddp=dict(ranks=2, engine='ddp', dtype='bfloat16'),
    rounded_fsdp2=dict(ranks=2, dtype='bfloat16'),
    native=dict(engine='single', dtype='bfloat16', native=True, iters=4),
    native_fsdp2=dict(ranks=2, dtype='bfloat16', native=True, iters=4),
    heads=dict(engine='single', dtype='bfloat16', heads='bfloat16', native=True, iters=4),
    heads_ddp=dict(ranks=2, engine='ddp', dtype='bfloat16', heads='bfloat16', native=True, iters=4),
    heads_fsdp2=dict(ranks=2, dtype='bfloat16', heads='bfloat16', native=True, iters=4),
    frozen=dict(engine='single', dtype='bfloat16', frozen=True, iters=4),
    frozen_fsdp2=dict(ranks=2, engine='fsdp2', dtype='bfloat16', frozen=True, iters=4),
    hybrid=dict(ranks=4, hosts=2, norm=False, iters=3, hybrid=True),
    hybrid_offloaded=dict(ranks=2, hosts=2, norm=False, iters=3, hybrid=True, cpu_offload=True,
                          prefetch=0),
    hybrid_added_up=dict(ranks=2, hosts=2, norm=False, iters=3, hybrid=True, accumulation=2,
                         checkpoint_blocks=1),
    gathered_once=dict(ranks=2, norm=False, iters=3, reshard_after_forward=False,
                       checkpoint_blocks=2),
    reduced=dict(ranks=2, norm=False, iters=3, reduce_dtype='bf16'),
    native_frozen=dict(engine='single', dtype='bfloat16', native=True, frozen=True, iters=3),
    native_frozen_fsdp2=dict(ranks=2, engine='fsdp2', dtype='bfloat16', native=True, frozen=True,
                             iters=3),
    offloaded=dict(ranks=1, engine='fsdp2', norm=False, iters=3, cpu_offload=True, prefetch=0),
)


@pytest.fixture(scope='module')
def traces(zygote, tmp_path_factory) -> Traces:
    return Traces(zygote, tmp_path_factory.mktemp('traces'), RUNS)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_engines_train_alike(traces, engine):
    assert len(traces['one']['losses']) == 6
    assert traces['one']['losses'][-1] < traces['one']['losses'][0]
    assert any(name.endswith('running_var') for name in traces['one']['state_dict'])
    assert_same(traces, 'one', engine)


@pytest.mark.slow
@pytest.mark.parametrize('name', [
    'added_up', 'added_up_ddp', 'added_up_fsdp2', slow('hybrid'), slow('hybrid_offloaded'),
    'hybrid_added_up', 'gathered_once', 'offloaded'])
def test_the_way_to_the_batch_changes_nothing(traces, name):
    assert_same(traces, 'plain', name)


@pytest.mark.parametrize('kind, other', [
    slow('rounded', 'rounded_ddp'), slow('rounded', 'rounded_fsdp2'),
    slow('native', 'native_fsdp2'),
    slow('heads', 'heads_ddp'), ('heads', 'heads_fsdp2')])
def test_bfloat16_trains_alike(traces, kind, other):
    """Rounded and cast again by modules (rounded), cast and computed with by FSDP2 (native).

    In the last runs the convolutions of the heads compute in bfloat16, too (heads).

    Adam takes whole steps of 1e-3 on gradients that are noise: six of them, either way.
    """
    a, b = traces[kind], traces[other]
    assert a['losses'] != traces['one']['losses'][:len(a['losses'])]
    torch.testing.assert_close(b['losses'], a['losses'], rtol=2e-2, atol=0)
    for name, tensor in a['state_dict'].items():
        torch.testing.assert_close(b['state_dict'][name], tensor, rtol=0.1, atol=4e-2)
    assert {t.dtype for name, t in traces[other]['state_dict'].items()
            if 'num_batches' not in name} == {torch.float32}


@pytest.mark.slow
def test_gradients_are_reduced_in_bfloat16(traces):
    a, b = traces['plain'], traces['reduced']
    whole, rounded = float(a['norms'][0]), float(b['norms'][0])
    assert whole != rounded and rounded == pytest.approx(whole, rel=1e-2)
    assert b['losses'] == pytest.approx(a['losses'], rel=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['frozen', 'native_frozen'])
def test_frozen_backbone_in_shards(traces, kind):
    assert_same(traces, kind, f'{kind}_fsdp2', loss=2e-2, weights=5e-3, norms=5e-2)
    kept = [traces[name]['state_dict']['backbone.blocks.0.attn.qkv.weight']
            for name in (kind, f'{kind}_fsdp2')]
    assert torch.equal(*kept) and kept[0].dtype == torch.bfloat16


@pytest.mark.slow
def test_a_block_that_is_not_read_in_shards(traces):
    assert traces['unread']['losses'][-1] < traces['unread']['losses'][0]
    assert 'backbone.blocks.4.norm1.weight' in traces['unread']['state_dict']


def step(dtype: torch.dtype, with_cp: bool = True, **engine) -> list[torch.Tensor]:
    """The loss and all gradients of a training step with drop path."""
    torch.manual_seed(0)
    model = build_segmentor(segmentor_config(
        'linear', embed_dim=24, depth=5, num_heads=2, img_size=28, out_indices=[4],
        drop_path_rate=0.5, with_cp=with_cp))
    apply_precision(model, dtype)
    model = parallelize.parallelize(model, 'cpu', Engine('single', **engine)).train()
    batch = dict(img=torch.randn(3, 3, 28, 28), gt_semantic_seg=torch.ones(3, 1, 28, 28).long(),
                 img_metas=[{}] * 3)
    loss = model.train_step(batch, None)['loss']
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_recomputed_blocks_give_the_same_bits(dtype):
    kept = step(dtype, with_cp=False)
    assert kept[0] > 0 and all(grad.abs().sum() > 0 for grad in kept[1:5])
    for engine in (dict(), dict(checkpoint_every=2), dict(checkpoint_blocks=0),
                   dict(checkpoint_blocks=3), dict(checkpoint_every=2, checkpoint_blocks=4)):
        assert all(map(torch.equal, step(dtype, **engine), kept)), engine


def test_which_blocks_are_recomputed():
    model = segmentor(False).backbone
    for engine in (Engine(), Engine(checkpoint_every=2), Engine(checkpoint_blocks=1),
                   Engine(checkpoint_every=2, checkpoint_blocks=3), Engine(checkpoint_blocks=0)):
        parallelize.set_checkpointing(nn.ModuleDict(dict(backbone=model)), engine)
        assert [i in model._recomputed for i in range(5)] == [
            engine.recomputes(i) for i in range(5)]
    assert [Engine(checkpoint_every=2, checkpoint_blocks=3).recomputes(i) for i in range(5)] == [
        True, False, True, False, False]


@pytest.mark.parametrize('options, asks', [
    (dict(), False), (dict(fast=True), True), (dict(checkpoint_every='auto'), True),
    (dict(fast=True, checkpoint_every=1), False),
    (dict(checkpoint_every='auto', checkpoint_blocks=3), False)])
def test_who_asks_for_as_little_recomputation_as_fits(options, asks):
    engine = Engine.of(options)
    assert engine.recomputes_on_demand == asks
    assert not engine.with_recomputed(4).recomputes_on_demand


def segmentor(frozen: bool) -> nn.Module:
    model = nn.Module()
    with torch.device('meta'):
        model.backbone = InternViT6B(embed_dim=24, depth=2, num_heads=2, img_size=28,
                                     out_indices=[1], freeze_vit=frozen)
    return model


def test_auto_in_one_process():
    assert choose_engine(Engine(), segmentor(False)) == 'single'


@pytest.mark.parametrize('frozen, kind', [(False, 'fsdp2'), (True, 'ddp')])
def test_auto_in_a_group(monkeypatch, frozen, kind):
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    assert choose_engine(Engine(), segmentor(frozen)) == kind
    with pytest.raises(InputError, match="'single' in 2 processes"):
        choose_engine(Engine('single'), segmentor(frozen))


@pytest.mark.parametrize('version, sums', [('2.8.0+cu128', True), ('2.9.1+cu128', False)])
def test_gloo_of_an_old_pytorch_is_asked_for_sums(process_group, monkeypatch, version, sums):
    monkeypatch.setattr(torch, '__version__', TorchVersion(version))
    model = segmentor(False).to_empty(device='cpu')
    model = parallelize.parallelize(model, 'cpu', Engine('fsdp2'))
    groups = [module._get_fsdp_state()._fsdp_param_group for module in model.modules()
              if isinstance(module, FSDPModule)]
    assert [group.force_sum_reduction_for_comms for group in groups] == [sums] * 3


@pytest.mark.parametrize('asked', ['auto', 'fsdp2'])
def test_an_old_pytorch_does_not_shard(process_group, monkeypatch, asked):
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.7.1+cu126'))
    with pytest.raises(InputError, match="'fsdp2' needs PyTorch 2.8 or newer, this is 2.7.1.cu126"):
        choose_engine(Engine(asked), segmentor(False))
    assert choose_engine(Engine('ddp'), segmentor(False)) == 'ddp'


@pytest.mark.parametrize('options, message', [
    (dict(typ='ddp'), r"unknown key in engine: 'typ' \(did you mean 'type'\?\)"),
    (dict(type='fsdp'), "engine.type='fsdp': expected one of auto, single, ddp, fsdp2"),
    (dict(defer_reduce=True), "'defer_reduce'; known keys: type, fast, checkpoint_every, "
     'checkpoint_blocks, compile, cuda_graphs, fused_optimizer, prefetch, hybrid, '
     'reshard_after_forward, reduce_dtype, cpu_offload$'),
    (dict(fused_optimizer='yes'), "fused_optimizer='yes': expected True or False; None stands for"),
    (dict(checkpoint_every=0), 'checkpoint_every=0: expected 1 or more'),
    (dict(checkpoint_every='all'), "checkpoint_every='all': expected 1 or more, or 'auto'"),
    (dict(checkpoint_blocks=-1), 'checkpoint_blocks=-1: expected 0 or more'),
    (dict(hybrid='yes'), "engine.hybrid='yes': expected 'auto', True or False"),
    (dict(reshard_after_forward=8), "reshard_after_forward=8: expected 'auto', True or False"),
    (dict(reduce_dtype='fp16'), "reduce_dtype='fp16': expected one of fp32, bf16"),
    (dict(prefetch=-1), 'prefetch=-1: expected 0 or more'),
])
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        Engine.of(options)


@pytest.mark.parametrize('reshard', [True, False])
def test_an_evaluation_leaves_no_weights_gathered(process_group, reshard):
    """What changes the shards then, such as averages that are taken back, would be missed."""
    model = build_segmentor(segmentor_config('linear', img_size=28))
    model = parallelize.parallelize(
        model, 'cpu', Engine('fsdp2', reshard_after_forward=reshard)).eval()
    meta = dict.fromkeys(('ori_shape', 'img_shape', 'pad_shape'), (28, 28, 3))
    with parallelize.evaluation_mode(model), torch.no_grad():
        model(img=[torch.randn(1, 3, 28, 28)], img_metas=[[{**meta, 'flip': False}]],
              return_loss=False)
        assert not all(isinstance(p, DTensor) for p in model.parameters())
    assert all(isinstance(p, DTensor) for p in model.parameters())


def test_no_process_holds_all_weights_in_float32(monkeypatch, process_group):
    """When a part is sharded, the blocks behind it are still in the file's dtype."""
    model, whole = segmentor(False), []

    def spy(part: nn.Module, **options) -> nn.Module:
        whole.append(sum(p.numel() for p in model.parameters()
                         if p.dtype == torch.float32 and not isinstance(p, DTensor)))
        return fully_shard(part, **options)

    fully_shard = parallelize.fully_shard
    monkeypatch.setattr(parallelize, 'fully_shard', spy)
    model.backbone.to_empty(device='cpu')
    apply_precision(model, torch.bfloat16, store=False)
    parallelize.parallelize(model, 'cpu', Engine('fsdp2'))
    block = sum(p.numel() for p in model.backbone.blocks[0].parameters())
    assert whole[:2] == [block, block]  # each is stored in shards by the time of the next
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_sharding_without_a_process_group():
    with pytest.raises(InputError, match='start with dist_train.sh'):
        choose_engine(Engine('fsdp2'), segmentor(False))
