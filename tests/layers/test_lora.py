import pytest
import torch
from torch import nn

from mmseg_custom.layers.block import Block
from mmseg_custom.layers.lora import (
    LoraOptions,
    add_lora,
    is_adapter,
    linear_names,
    lora_layers,
    native_name,
    reset_norms,
)
from mmseg_custom.layers.quantized_linear import quantize_linears


def block() -> Block:
    return Block(32, 2)


def adapted(source: Block, **options) -> Block:
    """Returns a copy of a block with adapters, whose B is not zero."""
    copy = block()
    copy.load_state_dict(source.state_dict())
    add_lora(copy, LoraOptions(**{'r': 4, 'alpha': 12, **options}))
    for _, layer in lora_layers(copy):
        nn.init.normal_(layer.lora_B['default'].weight, std=0.1)
        reset_norms(layer)
    return copy


def test_layers_add_the_product_of_their_adapters():
    source = block()
    found, x = adapted(source, targets=('qkv',)), torch.randn(2, 5, 32)
    layer = found.attn.qkv
    a, b = layer.lora_A['default'].weight, layer.lora_B['default'].weight
    assert a.shape == (4, 32) and b.shape == (96, 4)
    torch.testing.assert_close(layer(x), x @ (source.attn.qkv.weight + 12 / 4 * b @ a).T)


def test_dora_scales_rows_to_its_norms():
    source = block()
    found, x = adapted(source, targets=('fc1',), use_dora=True), torch.randn(2, 5, 32)
    layer = found.mlp.fc1
    a, b = layer.lora_A['default'].weight, layer.lora_B['default'].weight
    weight = source.mlp.fc1.weight + 12 / 4 * b @ a
    with torch.no_grad():
        layer.lora_magnitude_vector['default'].weight.mul_(1.5)
    torch.testing.assert_close(layer(x), 1.5 * x @ weight.T + source.mlp.fc1.bias)


@pytest.mark.parametrize('use_dora', [False, True])
def test_state_dicts_have_the_names_of_layers_without_adapters(use_dora):
    source = block()
    found = adapted(source, use_dora=use_dora)
    state = found.state_dict()
    own = {name for name in state if is_adapter(name)}
    assert state.keys() - own == source.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.state_dict().items())
    assert {native_name(name) for name, _ in found.named_parameters()} == state.keys()
    assert {native_name(name) for name, p in found.named_parameters() if p.requires_grad} == own

    other = adapted(block(), use_dora=use_dora)
    other.load_state_dict(state)  # strict
    x = torch.randn(2, 5, 32)
    assert torch.equal(other(x), found(x))
    wrapped = nn.Sequential(adapted(block(), use_dora=use_dora))
    wrapped.load_state_dict({f'0.{name}': tensor for name, tensor in state.items()})
    assert torch.equal(wrapped(x), found(x))


def test_a_missing_weight_is_named_as_in_the_file():
    found = adapted(block())
    state = found.state_dict()
    del state['attn.qkv.weight']
    with pytest.raises(RuntimeError, match='Missing.*attn.qkv.base_layer.weight'):
        found.load_state_dict(state)


def test_adapters_on_meta_have_values_of_their_own():
    with torch.device('meta'):
        found = block()
        add_lora(found, LoraOptions(r=4, use_dora=True))
    _, layer = next(lora_layers(found))
    assert layer.base_layer.weight.is_meta
    assert layer.lora_A['default'].weight.abs().sum() > 0
    assert (layer.lora_B['default'].weight == 0).all()
    assert layer.lora_magnitude_vector['default'].weight.is_meta  # follow from the weights


def test_targets_match_whole_names_and_their_last_parts():
    names = linear_names(block())
    assert names == ['attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2']
    found = adapted(block(), targets=('attn.proj', 'fc2'))
    assert [name for name, _ in lora_layers(found)] == ['attn.proj', 'mlp.fc2']


def test_layers_of_8_bits_take_adapters():
    found = quantize_linears(block(), 'int8')
    plain, x = found.state_dict(), torch.randn(2, 5, 32)
    with torch.no_grad():
        expected = found(x)
    add_lora(found, LoraOptions(r=4))
    assert torch.equal(found(x), expected)
    state = found.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.items())
