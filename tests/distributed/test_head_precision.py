"""Heads whose convolutions compute in bfloat16, with the channels last."""
import copy
import pickle

import pytest
import torch
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models import build_head
from torch import nn

from mmseg_custom.distributed import precision
from mmseg_custom.distributed.casts import ParameterCasts
from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.engine.build import head_dtype
from mmseg_custom.errors import InputError
from mmseg_custom.models import InternViT6B

IMAGES = torch.linspace(-1, 1, 2 * 3 * 28 * 28).reshape(2, 3, 28, 28)
LABELS = torch.arange(2 * 28 * 28).reshape(2, 1, 28, 28) // 60 % 5
COMMON = dict(num_classes=5, dropout_ratio=0.0, norm_cfg=dict(type='SyncBN'), align_corners=False)
UPERNET = dict(type='UPerHead', in_channels=[24] * 4, in_index=[0, 1, 2, 3], channels=8, **COMMON)
FCN = dict(type='FCNHead', in_channels=24, in_index=2, channels=8, num_convs=1, concat_input=False,
           **COMMON)
LINEAR = dict(FCN, channels=24, num_convs=0, with_norm=True)


@pytest.fixture(autouse=True)
def _with_bfloat16_instructions(monkeypatch):
    monkeypatch.setattr(precision, 'is_fast_on_cpu', lambda dtype: True)


def segmentor(head: dict = UPERNET, head_dtype: torch.dtype = torch.bfloat16,
              **backbone) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Module()
    model.backbone = InternViT6B(embed_dim=24, depth=4, num_heads=2, img_size=28, freeze_vit=True,
                                 out_indices=[0, 1, 2, 3], with_fpn=True, **backbone)
    model.decode_head = build_head(copy.deepcopy(head))
    model.auxiliary_head = nn.ModuleList([build_head(copy.deepcopy(FCN))])
    model = revert_sync_batchnorm(model)
    apply_precision(model, torch.bfloat16, 'cpu', head_dtype=head_dtype)
    return model.train()


def logits_of(model: nn.Module) -> torch.Tensor:
    return model.decode_head.forward_test(model.backbone(IMAGES), [{}], None)


def test_maps_reach_the_convolutions_as_the_backbone_computes_them():
    model = segmentor()
    seen = []
    for head in (model.decode_head, model.auxiliary_head[0]):
        for module in head.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda m, args, out: seen.append((m, args[0], out)))
    maps = model.backbone(IMAGES)
    assert {x.dtype for x in maps} == {torch.bfloat16}
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)
    outputs = [head(maps) for head in (model.decode_head, model.auxiliary_head[0])]
    assert {x.dtype for x in outputs} == {torch.float32}
    assert len(seen) == 15
    for module, maps, out in seen:
        classifier = module.out_channels == 5
        assert {maps.dtype, out.dtype} == {torch.float32 if classifier else torch.bfloat16}
        assert classifier or out.is_contiguous(memory_format=torch.channels_last)


def test_weights_names_statistics_and_gradients_stay_float32():
    plain, cast = segmentor(head_dtype=torch.float32), segmentor()
    assert list(plain.state_dict()) == list(cast.state_dict())
    found = []
    for model in (plain, cast):
        maps = model.backbone(IMAGES)
        loss = sum(head.losses(head(maps), LABELS)['loss_ce']
                   for head in (model.decode_head, *model.auxiliary_head))
        loss.backward()
        assert loss.dtype == torch.float32
        for name, tensor in [*model.decode_head.named_parameters(), *model.named_buffers()]:
            assert tensor.dtype in (torch.float32, torch.long), name
        found.append((loss.detach(), torch.cat([
            p.grad.flatten() for p in model.parameters() if p.requires_grad]), model.state_dict()))
    (loss, gradient, state), (near, like, other) = found
    assert abs(near / loss - 1) < 5e-3
    assert (like - gradient).norm() / gradient.norm() < 0.1
    for name in state:
        assert torch.allclose(state[name], other[name], atol=0.05, rtol=0.05), name


def test_testing_computes_as_training_does():
    model = segmentor().eval()
    assert torch.equal(logits_of(model), model.decode_head(model.backbone(IMAGES)))
    reference = logits_of(segmentor(head_dtype=torch.float32).eval())
    assert 0 < (logits_of(model) - reference).norm() / reference.norm() < 0.02


def test_the_linear_head_computes_what_it_does_in_float32():
    found, expected = logits_of(segmentor(LINEAR)), logits_of(segmentor(LINEAR, torch.float32))
    assert torch.allclose(found, expected, atol=1e-6)  # the channels last are added up otherwise


def test_a_network_without_other_convolutions_keeps_its_maps():
    model = segmentor(LINEAR)
    del model.auxiliary_head
    apply_precision(model, torch.bfloat16, 'cpu', head_dtype=torch.bfloat16)
    assert {x.dtype for x in model.backbone(IMAGES)} == {torch.float32}


def test_caches_and_sweeps_get_float32_maps_that_the_pyramid_takes():
    model = segmentor().eval()
    features = model.backbone.frozen_features(IMAGES)
    assert all(x.dtype == torch.float32 and x.is_contiguous() for x in features)
    assert all(map(torch.equal, model.backbone(features), model.backbone(IMAGES)))


def test_without_the_policy_for_the_backbone_the_heads_take_its_maps():
    model = segmentor(head_dtype=torch.float32)
    model.backbone = nn.Conv2d(3, 24, 1)
    apply_precision(model, None, 'cpu', head_dtype=torch.bfloat16)
    maps = [model.backbone(IMAGES)] * 4
    assert model.decode_head(maps).dtype == model.backbone.weight.dtype == torch.float32
    assert ParameterCasts.of(model.decode_head.bottleneck.conv).arithmetic == torch.bfloat16


def test_other_norms_compute_in_float32():
    model = segmentor(dict(UPERNET, norm_cfg=dict(type='GN', num_groups=2)))
    seen = []
    for module in model.decode_head.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(lambda m, args, out: seen.append(args[0].dtype))
    logits_of(model).sum().backward()
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(
    pickle.dumps(model))])
def test_a_copy_computes_on_its_own_weights(duplicate):
    model = segmentor().eval()
    expected, other = logits_of(model), duplicate(model)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert torch.equal(logits_of(other), expected)


def test_float32_again_takes_the_casts_away():
    model = segmentor()
    apply_precision(model, torch.bfloat16, 'cpu')
    assert not any(module._forward_pre_hooks for module in model.decode_head.modules())
    assert torch.equal(logits_of(model), logits_of(segmentor(head_dtype=torch.float32)))


def test_a_cpu_that_is_slow_in_bfloat16_computes_in_float32_on_rounded_weights(monkeypatch):
    monkeypatch.setattr(precision, 'is_fast_on_cpu', lambda dtype: False)
    model, reference = segmentor(), segmentor(head_dtype=torch.float32)
    assert {x.dtype for x in model.backbone(IMAGES)} == {torch.float32}
    for module in reference.decode_head.modules():
        if isinstance(module, nn.Conv2d) and module is not reference.decode_head.conv_seg:
            module.weight.data = module.weight.data.bfloat16().float()
    assert torch.allclose(logits_of(model), logits_of(reference), atol=1e-6)


@pytest.mark.parametrize('settings, expected', [
    ({}, 'float32'), (dict(engine=dict(fast=True)), 'bfloat16'),
    (dict(engine=dict(fast=True), precision='fp32'), 'float32'),
    (dict(engine=dict(fast=True), head_precision='fp32'), 'float32'),
    (dict(head_precision='bf16'), 'bfloat16')])
def test_the_config_says_what_heads_compute_in(settings, expected):
    model = segmentor(head_dtype=torch.float32)
    assert head_dtype(Config(settings), model) == getattr(torch, expected)


def test_fast_leaves_heads_of_others_alone():
    model = segmentor(head_dtype=torch.float32)
    model.decode_head = nn.Conv2d(24, 5, 1)
    assert head_dtype(Config(dict(engine=dict(fast=True))), model) == torch.float32
    with pytest.raises(InputError, match="head_precision='fp16': expected one of fp32, bf16"):
        head_dtype(Config(dict(head_precision='fp16')), model)


def test_heads_of_others_are_refused():
    model = segmentor(head_dtype=torch.float32)
    model.decode_head = nn.Conv2d(24, 5, 1)
    with pytest.raises(InputError, match="head_precision='bf16'.*Conv2d.*expected FCNHead"):
        apply_precision(model, torch.bfloat16, 'cpu', head_dtype=torch.bfloat16)


def test_linear_layers_of_a_mask_decoder_but_the_classifier():
    masks = dict(type='PlainMaskHead', in_channels=[24], in_index=[1], channels=16,
                 num_heads=2, num_blocks=2, num_classes=5, num_points=32)
    exact, reduced = (segmentor(masks, dtype) for dtype in (torch.float32, torch.bfloat16))
    cast = {name for name, module in reduced.decode_head.named_modules()
            if (casts := ParameterCasts.of(module)) and casts.dtype == torch.bfloat16}
    assert {'laterals.0.proj', 'blocks.1.qkv', 'blocks.1.mlp.fc2', 'predictor.mask_head.4',
            'predictor.upscale.0.conv1'} <= cast and 'predictor.class_head' not in cast
    found = []
    for model in (exact, reduced):
        maps = [x.float() for x in model.backbone(IMAGES)] if model is exact else (
            model.backbone(IMAGES))
        torch.manual_seed(0)
        losses = model.decode_head.forward_train(maps, [{}] * 2, LABELS, None)
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        assert all(p.grad.dtype == torch.float32 for p in model.decode_head.parameters())
        found.append({name: value.item() for name, value in losses.items() if 'loss' in name})
    assert found[1] == pytest.approx(found[0], rel=0.02) and found[1] != found[0]
