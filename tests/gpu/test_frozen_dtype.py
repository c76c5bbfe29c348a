"""Linear layers of 8 bits on a GPU, whose products take rounded tokens, against float32."""
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmseg_custom.layers.quantized_linear import DTYPES, QuantizedLinear, has_product, quantize_rows
from mmseg_custom.models import InternViT6B

pytestmark = pytest.mark.gpu
TINY = dict(embed_dim=256, depth=4, num_heads=2, img_size=112, out_indices=[1, 3], freeze_vit=True)


@pytest.mark.parametrize('kind', DTYPES)
@pytest.mark.parametrize('tokens', [65, 2594])
def test_a_product_is_that_of_the_rounded_tokens_and_weights(device, kind, tokens):
    layer = QuantizedLinear.of(nn.Linear(3200, 3200, dtype=torch.bfloat16), kind).to(device)
    assert layer.rounds_tokens == has_product(kind, torch.device(device))
    x = torch.randn(1, tokens, 3200, device=device, dtype=torch.bfloat16)
    values, scales = quantize_rows(x, DTYPES[kind])
    read = values.float() * scales if layer.rounds_tokens else x.float()
    expected = F.linear(read.double(), layer.dequantized(torch.float32).double(),
                        layer.bias.double()).float()
    found = layer(x)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() / expected.norm() < 0.01


@pytest.mark.parametrize('kind', DTYPES)
def test_the_gradient_of_tokens_is_that_of_the_weights(device, kind):
    layer = QuantizedLinear.of(nn.Linear(3200, 6400, dtype=torch.bfloat16), kind).to(device)
    x = torch.randn(1, 65, 3200, device=device, dtype=torch.bfloat16, requires_grad=True)
    towards = torch.randn(1, 65, 6400, device=device, dtype=torch.bfloat16)
    (layer(x) * towards).sum().backward()
    expected = (towards.double() @ layer.dequantized(torch.float32).double()).float()
    assert x.grad.dtype == torch.bfloat16
    assert (x.grad.float() - expected).norm() / expected.norm() < 0.01


@pytest.mark.parametrize('kind', DTYPES)
def test_feature_maps_stay_near_those_of_bfloat16(device, kind, tmp_path):
    plain, path = InternViT6B(**TINY), str(tmp_path / 'backbone.pth')
    torch.save(plain.state_dict(), path)
    rounded = InternViT6B(**TINY, frozen_dtype=kind, pretrained=path).to(device)
    images = torch.randn(2, 3, 112, 112, device=device)
    for found, exact in zip(rounded.frozen_features(images),
                            copy.deepcopy(plain).to(device).frozen_features(images)):
        assert 0 < (found - exact).norm() / exact.norm() < 0.05
