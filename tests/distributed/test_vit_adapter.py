"""A ViT-Adapter trains alike in one process, under DDP and FSDP2: helpers/traces.py."""
import pytest
import torch
from helpers.tiny_networks import ADAPTER, segmentor_config
from helpers.trace_runs import Traces, assert_same
from mmseg.models import build_segmentor

from mmseg_custom.distributed import precision
from mmseg_custom.distributed.acceleration import accelerate
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.parallelize import read_blocks
from mmseg_custom.distributed.precision import apply_precision, training_dtype
from mmseg_custom.engine.determinism import settle_determinism
from mmseg_custom.errors import InputError

OPTIONS = {name: value for name, value in ADAPTER.items() if name not in ('img_size', 'depth')}
RUN = dict(iters=4, norm=False, side=32, frozen=True, backbone=dict(OPTIONS, with_fpn=False))
RUNS = {f'{engine}{suffix}': dict(RUN, engine=engine, ranks=1 + (engine != 'single'), **dtype)
        for engine in ('single', 'ddp', 'fsdp2')
        for suffix, dtype in (('', {}), ('_16', dict(dtype='bfloat16', native=True)))}


@pytest.fixture(scope='module')
def traces(zygote, tmp_path_factory) -> Traces:
    return Traces(zygote, tmp_path_factory.mktemp('traces'), RUNS)


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_engines_train_alike(traces, engine):
    assert traces['single']['losses'][-1] < traces['single']['losses'][0]
    assert_same(traces, 'single', engine)


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['ddp', 'fsdp2'])
def test_bfloat16_trains_alike(traces, engine):
    """The transformer is stored in bfloat16, the adapter in float32."""
    one, other = traces['single_16'], traces[f'{engine}_16']
    torch.testing.assert_close(other['losses'], one['losses'], rtol=2e-2, atol=0)
    for name, tensor in one['state_dict'].items():
        frozen = name.startswith(('backbone.blocks', 'backbone.patch', 'backbone.pos'))
        assert tensor.dtype == (torch.bfloat16 if frozen else torch.float32), name
        assert other['state_dict'][name].dtype == tensor.dtype


def segmentor(**backbone) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_segmentor(segmentor_config('upernet', **ADAPTER, with_fpn=False,
                                            out_indices=[0, 1, 2, 3], **backbone))


@pytest.mark.parametrize('native', [True, False])
def test_casts_go_with_recomputation(monkeypatch, native):
    """Each injector and extractor casts its weights itself, in the backward pass too."""
    monkeypatch.setattr(precision, 'is_fast_on_cpu', lambda dtype: native)
    gradients = []
    for with_cp in (False, True):
        model = segmentor(with_cp=with_cp).train()
        apply_precision(model, torch.bfloat16, 'cpu')
        maps = model.backbone(torch.linspace(-1, 1, 3 * 32 * 64).view(1, 3, 32, 64))
        assert {each.dtype for each in maps} == {torch.float32}
        sum(each.square().sum() for each in maps).backward()
        gradients.append([p.grad for p in model.backbone.parameters() if p.requires_grad])
    assert all(map(torch.equal, *gradients))
    assert {each.dtype for each in gradients[0]} == {torch.float32}


def test_it_is_not_trained_in_float16():
    adapter = segmentor().backbone
    assert training_dtype(torch.float16, adapter) == torch.bfloat16
    assert training_dtype(torch.float32, adapter) == torch.float32
    plain = build_segmentor(segmentor_config()).backbone
    assert training_dtype(torch.float16, plain) == torch.float16


def test_its_blocks_are_not_captured(monkeypatch):
    model = segmentor()
    with pytest.raises(InputError, match='adapter changes the tokens between the blocks'):
        accelerate(model, read_blocks(model), Engine(cuda_graphs=True), 'cuda')


def test_a_deterministic_run_goes_on_with_a_word():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        settle_determinism(segmentor())
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
