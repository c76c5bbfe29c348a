from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmseg_custom.layers.block import Block
from mmseg_custom.layers.lora import LoraOptions, add_lora
from mmseg_custom.layers.quantized_linear import (
    DTYPES,
    QuantizedLinear,
    quantize_linears,
    quantize_rows,
    weight_of,
)

# Relative error of normally distributed rows: half a step of 1/127 of the largest value; 3 bits
# behind the leading one.
BOUNDS = dict(int8=0.015, fp8=0.035)


@pytest.mark.parametrize('kind, dtype', DTYPES.items())
def test_rounding_is_bounded_and_rounding_again_changes_nothing(kind, dtype):
    rows = torch.randn(64, 128) * torch.logspace(-6, 4, 64)[:, None]
    values, scales = quantize_rows(rows, dtype)
    found = values.float() * scales
    assert ((found - rows).norm(dim=1) / rows.norm(dim=1)).max() < BOUNDS[kind]
    again, scales_again = quantize_rows(found, dtype)
    assert torch.equal(again.float(), values.float()) and torch.equal(scales_again, scales)


@pytest.mark.parametrize('kind', DTYPES)
def test_rows_of_zeros_stay_zero_and_nan_stays(kind):
    values, scales = quantize_rows(torch.tensor([[0.0, 0.0], [float('nan'), 1.0]]), DTYPES[kind])
    assert (values[0].float() * scales[0] == 0).all() and not scales[1].isfinite().all()


@pytest.mark.parametrize('kind', DTYPES)
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32, torch.float16])
def test_a_layer_stays_near_the_one_that_it_was_made_of(kind, bias, dtype):
    linear = nn.Linear(96, 32, bias=bias, dtype=torch.bfloat16)
    layer, x = QuantizedLinear.of(linear, kind), torch.randn(2, 20, 96, dtype=dtype)
    found, expected = layer(x), linear.to(dtype)(x)
    assert found.dtype == dtype and found.shape == (2, 20, 32)
    assert (found - expected).norm() / expected.norm() < BOUNDS[kind]
    assert layer.weight.nbytes == linear.weight.numel()


def product_of_a_gpu(layer: QuantizedLinear, x: Tensor) -> Tensor:
    layer.rounds_tokens = True
    return layer(x)


def test_the_product_of_a_gpu_rounds_tokens_too():
    layer, x = QuantizedLinear.of(nn.Linear(96, 32), 'int8'), torch.randn(20, 96)
    values, scales = quantize_rows(x, torch.int8)
    expected = F.linear(values * scales, layer.dequantized(torch.float32), layer.bias)
    torch.testing.assert_close(product_of_a_gpu(layer, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('kind', DTYPES)
def test_casts_of_the_network_leave_8_bits_alone(kind):
    module = quantize_linears(nn.Sequential(nn.Linear(32, 16), nn.LayerNorm(16)), kind)
    before = {name: value.clone() for name, value in module[0].state_dict().items()}
    module.bfloat16().float()
    assert torch.equal(module[0].weight, before['weight'])
    assert module[0].weight_scale.dtype == torch.float32
    assert torch.equal(module[0].weight_scale, before['weight_scale'])


@pytest.mark.parametrize('kind', DTYPES)
def test_state_dicts_of_both_forms_are_loaded(kind):
    linear = nn.Linear(32, 16)
    expected = QuantizedLinear.of(linear, kind)
    for state in (linear.state_dict(), expected.state_dict()):
        layer = QuantizedLinear(32, 16, True, kind)
        layer.load_state_dict(state)
        assert torch.equal(layer.weight, expected.weight)
        assert torch.equal(layer.weight_scale, expected.weight_scale)
        assert not any(p.requires_grad for p in layer.parameters())


def test_a_layer_on_the_meta_device_takes_memory_when_it_gets_weights():
    with torch.device('meta'):
        layer = QuantizedLinear.of(nn.Linear(32, 16, bias=False), 'int8')
    assert layer.weight.is_meta
    layer.store(torch.ones(16, 32))
    assert layer.weight.device.type == 'cpu'
    torch.testing.assert_close(layer(torch.ones(1, 32)), torch.full((1, 16), 32.0), rtol=1e-3,
                               atol=0.0)


def test_scales_are_named_after_their_weights():
    assert weight_of('blocks.0.attn.qkv.weight_scale') == 'blocks.0.attn.qkv.weight'
    assert weight_of('blocks.0.ls1.gamma') == 'blocks.0.ls1.gamma'


def small_block(kind: str) -> nn.Module:
    torch.manual_seed(0)
    block = Block(64, 2, 4.0, True, True, 'rms_norm', 0.1, False, drop_path=0.5,
                  use_flash_attn=False)
    return quantize_linears(block, kind)


def gradient(run, *shape: int, **options) -> Tensor:
    """Returns the gradient of the input behind a sum of squares."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(**options)
    x.requires_grad_()
    run(x).float().square().sum().backward()
    return x.grad


@pytest.mark.parametrize('kind', DTYPES)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32, torch.float16])
def test_the_gradient_is_that_of_the_dequantized_weights(kind, dtype):
    layer = QuantizedLinear.of(nn.Linear(96, 32, dtype=torch.bfloat16), kind)
    found = gradient(layer, 2, 20, 96, dtype=dtype)
    expected = gradient(lambda x: F.linear(x, layer.dequantized(dtype), layer.bias.to(dtype)),
                        2, 20, 96, dtype=dtype)
    assert found.dtype == dtype and found.abs().max() > 0
    assert torch.equal(found, expected)
    assert all(p.grad is None for p in layer.parameters())


def test_the_gradient_takes_the_rounding_of_tokens_for_the_identity():
    layer = QuantizedLinear.of(nn.Linear(96, 32), 'int8')
    x = torch.randn(20, 96, requires_grad=True)
    product_of_a_gpu(layer, x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(20, 32) @ layer.dequantized(torch.float32))


@pytest.mark.parametrize('kind', DTYPES)
def test_autograd_keeps_the_8_bits_alone(kind):
    block, kept = small_block(kind), []
    stored = {layer.weight.data_ptr() for layer in block.modules()
              if isinstance(layer, QuantizedLinear)}

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        block(torch.randn(1, 5, 64, requires_grad=True))
    weights = [x for x in kept if x.dim() == 2 and x.numel() >= 64 * 64]
    assert {x.data_ptr() for x in weights} == stored
    assert all(x.element_size() == 1 for x in weights)


@pytest.mark.parametrize('kind', DTYPES)
def test_recomputed_blocks_have_the_same_gradient(kind):
    block = small_block(kind)
    torch.manual_seed(2)
    expected = gradient(block, 4, 5, 64)
    torch.manual_seed(2)
    assert torch.equal(gradient(lambda x: checkpoint(block, x, use_reentrant=False), 4, 5, 64),
                       expected)


@pytest.mark.parametrize('kind', DTYPES)
@pytest.mark.parametrize('device, mode', [('meta', nullcontext), ('cpu', FakeTensorMode)])
def test_gradients_are_simulated(kind, device, mode):
    """As by the doctor, whose device multiplies 8 bits."""
    with mode(), torch.device(device):
        layer = QuantizedLinear(96, 32, True, kind)
        layer.rounds_tokens = mode is FakeTensorMode
        found = gradient(layer, 20, 96, dtype=torch.bfloat16, device=device)
    assert found.shape == (20, 96) and found.device.type == device


@pytest.mark.slow
@pytest.mark.parametrize('kind', DTYPES)
def test_compiled_blocks_with_adapters_have_the_same_gradient(kind):
    block = small_block(kind).eval()
    add_lora(block, LoraOptions(r=4))
    compiled = torch.compile(block.forward, dynamic=False, fullgraph=True)
    with torch._inductor.config.patch(compile_threads=1):
        torch.testing.assert_close(gradient(compiled, 2, 5, 64), gradient(block, 2, 5, 64))
