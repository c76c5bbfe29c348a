"""Predicted bytes against those of real tensors; the benchmark does it at full width."""
import pytest
import torch
import torch.distributed as dist
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from mmseg_custom.distributed.memory import (
    Storage,
    moments_of,
    share,
    state_bytes,
    storage_of,
)
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import parallelize
from mmseg_custom.distributed.precision import apply_precision


def segmentor(frozen: bool = False, depth: int = 3, **backbone) -> nn.Module:
    return build_segmentor(segmentor_config(kind='EncoderDecoder', depth=depth, freeze_vit=frozen,
                                            **backbone))


@pytest.fixture
def four_ranks():
    """A process group of four of which three do not exist."""
    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=4)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('options', [
    dict(), dict(frozen=True), dict(train_last=1, train_norms=True),
    dict(adapt=dict(type='lora', r=3, use_dora=True, blocks=[0, 2]))])
def test_shares_are_those_of_fsdp2(four_ranks, options):
    model = segmentor(**options)
    predicted = state_bytes(model, 'fsdp2', 4)
    apply_precision(model, torch.bfloat16)
    wrapped = parallelize(model, 'cpu', Engine('fsdp2'))
    shards = [(p.requires_grad, p.to_local()) for p in wrapped.parameters()]
    assert predicted.master_weights == sum(t.nbytes for trained, t in shards if trained)
    buffers = sum(b.nbytes for b in model.buffers())
    assert predicted.frozen == buffers + sum(t.nbytes for trained, t in shards if not trained)
    assert predicted.gradients == predicted.master_weights and (
        predicted.optimizer == 2 * predicted.master_weights)


def test_one_process_holds_what_it_trains_with():
    model = segmentor()
    weights = sum(p.numel() for p in model.parameters())
    for kind in ('single', 'ddp'):
        states = state_bytes(model, kind, 8)
        assert (states.master_weights, states.gradients, states.optimizer) == (
            4 * weights, 4 * weights, 8 * weights)
    head = sum(p.numel() for p in model.decode_head.parameters())
    small = state_bytes(model, 'single', 1, storage=Storage(2, 2, 4))
    assert small.master_weights == 2 * (weights - head) + 4 * head  # heads stay float32


def test_what_is_at_work():
    model = segmentor()
    rest = sum(p.numel() for name, p in model.backbone.named_parameters()
               if not name.startswith('blocks'))
    block = sum(p.numel() for p in model.backbone.blocks[0].parameters())
    recomputed = state_bytes(model, 'single', 1).working
    assert recomputed == 2 * (rest + 2 * block)
    every_second = state_bytes(model, 'single', 1, Engine(checkpoint_every=2)).working
    assert every_second == recomputed + 2 * block  # of three blocks, the second keeps its casts
    assert state_bytes(model, 'single', 1, dtype=torch.float32).working == 0
    ahead = [state_bytes(model, 'fsdp2', 4, Engine(prefetch=n)).working for n in (0, 1, 2)]
    assert ahead[2] - ahead[1] == ahead[1] - ahead[0] == 2 * block


@pytest.mark.parametrize('optimizer, moments', [
    (dict(type='AdamW', constructor='CustomLayerDecayOptimizerConstructor', fused=True,
          paramwise_cfg=dict(num_layers=48, layer_decay_rate=0.95)), 2),
    (dict(type='Adam', amsgrad=True), 3), (dict(type='SGD', momentum=0.9), 1),
    (dict(type='SGD'), 0), (dict(type='Adagrad'), 1), (dict(type='LowMemoryAdamW'), 2)])
def test_moments_are_those_that_an_optimizer_keeps(optimizer, moments):
    assert moments_of(optimizer) == moments


@pytest.mark.skipif(not hasattr(torch.optim, 'Muon'), reason='this PyTorch has no Muon')
def test_an_optimizer_that_takes_matrices_alone():
    assert moments_of(dict(type='Muon')) == 1


def test_small_helpers():
    assert share([torch.empty(10, 3), torch.empty(1, 7), torch.empty(())], 4) == 9 + 7 + 1
    assert storage_of(dict(type='SGD', momentum=0.9)) == Storage(4, 4, 4, 4)
    assert storage_of(dict(type='LowMemoryAdamW', state='bf16')) == Storage(2, 2, 4, 8)
    assert storage_of(dict(type='LowMemoryAdamW')).optimizer == 2 + 8 / 256
