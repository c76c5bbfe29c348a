import copy
import functools
import pickle
import time

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmseg_custom.distributed import precision
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.models import InternViT6B

MEASURED = precision.is_fast_on_cpu
IMAGES = torch.linspace(-1, 1, 2 * 3 * 28 * 28).reshape(2, 3, 28, 28)


@pytest.fixture(autouse=True)
def _with_bfloat16_instructions(monkeypatch):
    monkeypatch.setattr(precision, 'is_fast_on_cpu', lambda dtype: True)


def segmentor(**changes) -> nn.Module:
    options = dict(embed_dim=24, depth=4, num_heads=2, img_size=28, out_indices=[0, 1, 2, 3])
    model = nn.Module()
    model.backbone = InternViT6B(**{**options, **changes})
    model.decode_head = nn.Conv2d(24, 5, 1).bfloat16()
    return model


def test_trained_weights_are_float32_and_compute_in_bfloat16():
    model = segmentor()
    before = [x.detach() for x in model.backbone.eval()(IMAGES)]
    apply_precision(model, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(before, model.backbone(IMAGES)))
    model.backbone.train()(IMAGES)[-1].sum().backward()
    assert {p.grad.dtype for p in model.backbone.parameters()} == {torch.float32}


def test_gradients_are_those_of_bfloat16_weights():
    plain, cast = segmentor(with_cp=True), segmentor(with_cp=True)
    cast.backbone.load_state_dict(plain.backbone.state_dict())
    apply_precision(cast, torch.bfloat16)
    for model in (plain, cast):
        model.backbone.train()(IMAGES)[-1].sum().backward()
    for (name, a), b in zip(plain.backbone.named_parameters(), cast.backbone.parameters()):
        if name not in ('pos_embed', 'cls_token'):  # these two sum over the batch in float32
            assert torch.equal(a.grad.float(), b.grad), name


def test_frozen_weights_stay_bfloat16_and_the_pyramid_trains_in_float32():
    model = segmentor(freeze_vit=True, with_fpn=True)
    apply_precision(model, torch.bfloat16)
    dtypes = {name.split('.')[0]: p.dtype for name, p in model.backbone.named_parameters()}
    assert dtypes['blocks'] == dtypes['pos_embed'] == torch.bfloat16
    assert dtypes['up1'] == dtypes['up2'] == model.decode_head.weight.dtype == torch.float32
    model.backbone(IMAGES)[0].sum().backward()
    assert model.backbone.up1[0].weight.grad.dtype == torch.float32


def test_applying_twice_changes_nothing():
    model = segmentor()
    apply_precision(model, torch.bfloat16)
    expected, parameters = model.backbone.eval()(IMAGES)[-1], list(model.parameters())
    apply_precision(model, torch.bfloat16)
    assert len(model.backbone.blocks[0]._forward_pre_hooks) == 1
    assert torch.equal(model.backbone(IMAGES)[-1], expected)
    assert all(a is b for a, b in zip(parameters, model.parameters()))


def test_a_copy_computes_on_its_own_weights():
    model = segmentor()
    apply_precision(model, torch.bfloat16)
    expected = model.backbone.eval()(IMAGES)[-1]
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for parameter in model.parameters():
        parameter.data.zero_()
    for other in copies:
        assert torch.equal(other.backbone(IMAGES)[-1], expected)
        apply_precision(other, torch.bfloat16)
        assert len(other.backbone.blocks[0]._forward_pre_hooks) == 1


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_names_and_master_weights_survive_an_error_inside():
    model = segmentor()
    apply_precision(model, torch.bfloat16)
    with pytest.raises(RuntimeError):
        model.backbone.blocks[0](torch.zeros(1, 2, 5))
    hook = model.backbone.blocks[0].mlp.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.backbone(IMAGES)
    hook.remove()
    model.backbone(IMAGES)  # puts them back
    assert {p.dtype for p in model.backbone.parameters()} == {torch.float32}
    assert 'blocks.0.attn.qkv.weight' in dict(model.backbone.named_parameters())


@pytest.mark.parametrize('master_weights', [False, True])
def test_small_steps_move_only_master_weights(master_weights):
    model = segmentor()
    if master_weights:
        apply_precision(model, torch.bfloat16)
    weight = model.backbone.blocks[0].mlp.fc1.weight
    start = weight.detach().clone()
    optimizer = torch.optim.AdamW(model.backbone.parameters(), lr=4e-5 * 0.95 ** 48)
    for _ in range(20):
        optimizer.zero_grad()
        model.backbone.train()(IMAGES)[-1].square().mean().backward()
        optimizer.step()
    moved = (weight != start).float().mean().item()
    assert moved > 0.95 if master_weights else moved < 0.5


@pytest.fixture
def measuring(monkeypatch):
    """Lets the real function measure, once more."""
    monkeypatch.setattr(precision, 'is_fast_on_cpu', functools.cache(MEASURED.__wrapped__))
    return precision.is_fast_on_cpu


@pytest.mark.parametrize('ratio, fast', [(2.0, False), (0.4, True)])
def test_the_faster_dtype_is_measured_and_not_asked_for(measuring, monkeypatch, ratio, fast):
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: True)
    measured = []

    def seconds(dtype: torch.dtype) -> float:
        measured.append(dtype)
        return ratio if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(precision, '_seconds_of_product', seconds)
    assert measuring(torch.bfloat16) is measuring(torch.bfloat16) is fast
    assert len(measured) == 2  # once in a process
    assert measuring(torch.float32) is True
    model = segmentor()
    apply_precision(model, torch.bfloat16)
    casts = precision.ParameterCasts.of(model.backbone.blocks[0])
    assert casts.arithmetic == (torch.bfloat16 if fast else torch.float32)


def test_what_is_not_supported_is_not_measured(measuring, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)
    monkeypatch.setattr(precision, '_seconds_of_product', None)
    assert measuring(torch.bfloat16) is False


def test_a_measurement_takes_milliseconds_and_leaves_the_threads():
    threads, start = torch.get_num_threads(), time.thread_time()
    seconds = precision._seconds_of_product(torch.float32)
    assert 0 < seconds < time.thread_time() - start < 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize('others_are_fast', [True, False])
def test_all_ranks_compute_in_the_dtype_that_is_fast_on_all_of_them(monkeypatch, others_are_fast):
    def all_reduce(flag, operation):
        assert operation == dist.ReduceOp.MIN and flag.device.type == 'cpu'
        flag.fill_(min(int(flag), others_are_fast))

    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'all_reduce', all_reduce)
    model = segmentor()
    apply_precision(model, torch.bfloat16)
    casts = precision.ParameterCasts.of(model.backbone.blocks[0])
    assert casts.arithmetic == (torch.bfloat16 if others_are_fast else torch.float32)


def test_cpu_without_bfloat16_computes_in_float32_on_rounded_weights(monkeypatch):
    monkeypatch.setattr(precision, 'is_fast_on_cpu', lambda dtype: dtype == torch.float32)
    trained, tested = segmentor(), segmentor()
    apply_precision(trained, torch.bfloat16)
    for parameter in trained.backbone.parameters():  # away from bfloat16's grid
        parameter.data.mul_(1 + 1e-3)
    tested.requires_grad_(False)
    apply_precision(tested, torch.bfloat16)
    tested.backbone.load_state_dict(trained.backbone.state_dict())
    exact = segmentor().backbone.float()
    exact.load_state_dict(tested.backbone.state_dict())
    found = [x.eval()(IMAGES)[-1] for x in (trained.backbone, tested.backbone, exact)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert {p.dtype for p in tested.backbone.parameters()} == {torch.bfloat16}
    trained.backbone.train()(IMAGES)[-1].sum().backward()
    assert trained.backbone.pos_embed.grad.abs().sum() > 0
