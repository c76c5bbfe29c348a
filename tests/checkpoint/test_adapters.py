"""Arithmetic of merging, beside peft's own."""
import pytest
import torch
from helpers.adapters import adapted
from helpers.tiny_networks import write_flat

from mmseg_custom.checkpoint.adapters import RoundingLoss, adapters_in, merged_weights
from mmseg_custom.checkpoint.lazy import LazyStateDict, LazyTensor
from mmseg_custom.layers.lora import is_adapter, lora_layers
from mmseg_custom.layers.quantized_linear import weight_of


def lazy(model: torch.nn.Module) -> LazyStateDict:
    return LazyStateDict('x.pth', {name: LazyTensor.of(tensor)
                                   for name, tensor in model.state_dict().items()})


@pytest.mark.parametrize('options', [
    {}, dict(use_dora=True), dict(targets=['fc1'], blocks=[1])], ids=['all', 'dora', 'one'])
def test_merged_weights_are_those_of_peft(options, tmp_path):
    model = adapted(write_flat(tmp_path), **options)
    weights = lazy(model)
    merged = merged_weights(weights, adapters_in(weights, 6 / 4))
    assert list(merged) == [name for name in weights if not is_adapter(name)]
    layers = list(lora_layers(model))
    for name, layer in layers:
        before = weights[f'{name}.weight'].read().clone()
        found = merged[f'{name}.weight'].read()
        layer.merge()  # in place, in the tensor that was lent to the weights, too
        torch.testing.assert_close(found, layer.base_layer.weight, rtol=1e-5, atol=1e-6)
        assert (found - before).abs().max() > 0.1
    assert len(layers) == (1 if options.get('blocks') else 12)
    touched = {f'{name}.weight' for name, _ in layers}
    for name in merged.keys() - touched:
        assert merged[name] is weights[name]


@pytest.mark.parametrize('kind', ['int8', 'fp8'])
@pytest.mark.parametrize('from_file', [True, False])
def test_weights_of_8_bits_are_those_that_the_run_computed_with(kind, from_file, tmp_path):
    """They are exact in float32: of layers with adapters, and of the others."""
    model = adapted(write_flat(tmp_path), targets=['qkv'], backbone=dict(frozen_dtype=kind))
    weights = lazy(model)
    if from_file:
        base = torch.load(tmp_path / 'flat.pth')
        weights = LazyStateDict('x.pth', {
            name: tensor if is_adapter(name) or not name.startswith('backbone.') else
            LazyTensor.of(base[name.removeprefix('backbone.')])
            for name, tensor in weights.items() if weight_of(name) == name})
    adapters = adapters_in(weights, 6 / 4)
    merged = merged_weights(weights, adapters, kind if from_file else None)
    block = model.backbone.blocks[1]
    assert torch.equal(merged['backbone.blocks.1.mlp.fc1.weight'].read(),
                       block.mlp.fc1.dequantized(torch.float32))
    qkv = block.attn.qkv.base_layer.dequantized(torch.float32)
    delta = 6 / 4 * block.attn.qkv.lora_B.default.weight @ block.attn.qkv.lora_A.default.weight
    torch.testing.assert_close(merged['backbone.blocks.1.attn.qkv.weight'].read(), qkv + delta,
                               rtol=1e-6, atol=1e-6)
    assert not [name for name in merged if weight_of(name) != name]


def test_loss_of_rounding():
    loss, weight = RoundingLoss(), torch.ones(600, 4)
    assert loss.share is None
    loss.add(weight, weight + 2 ** -10)  # rounded away
    assert loss.share == 1
    loss.add(weight, weight + 1)
    assert 0 < loss.share < 0.01
