"""Adapters without peft, against peft's own layers."""
import copy

import pytest
import torch
from torch import nn

from mmseg_custom.layers.block import Block
from mmseg_custom.layers.lora import LoraOptions, add_lora
from mmseg_custom.layers.plain_lora import PlainLora, add_plain_lora
from mmseg_custom.layers.quantized_linear import quantize_linears


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('use_dora, kind', [(False, None), (True, None), (False, 'int8')])
@torch.no_grad()
def test_results_have_the_bits_of_peft(dtype, use_dora, kind):
    options = LoraOptions(r=4, alpha=6, targets=('qkv', 'mlp.fc2'), use_dora=use_dora)
    block = Block(32, 2, qkv_bias=True).to(dtype)
    if kind:
        quantize_linears(block, kind)
    mine, theirs = copy.deepcopy(block), block
    add_lora(theirs, options)
    for name, parameter in theirs.named_parameters():
        if 'lora_' in name:
            parameter += 0.1 * torch.randn_like(parameter)
    theirs.to(dtype).eval()
    add_plain_lora(mine, options)
    mine.to(dtype).eval()
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 32).to(dtype)
    assert torch.equal(mine(x), theirs(x))
    assert [name for name, layer in mine.named_modules() if isinstance(layer, PlainLora)] == [
        'attn.qkv', 'mlp.fc2']


def test_the_device_is_that_of_the_layers():
    with torch.device('meta'):
        module = nn.Sequential(nn.Linear(8, 8))
    add_plain_lora(module, LoraOptions(r=2, targets=('0',)))
    assert all(parameter.is_meta for parameter in module.parameters())
