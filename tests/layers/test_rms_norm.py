"""The norm in strips has torch's bits, and its gradients have."""
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_custom.layers import rms_norm
from mmseg_custom.layers.rms_norm import RMSNorm

D, EPS = 96, 1e-6


@pytest.fixture(autouse=True)
def small_strips(monkeypatch):
    """Three strips of 8 rows and one of 2, for 26 rows."""
    monkeypatch.setattr(rms_norm, 'STRIP', 8 * D)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)


def tokens(layout: str, dtype: torch.dtype) -> Tensor:
    x = torch.randn(2, 13, 3 * D, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x[..., :D].contiguous() if layout == 'dense' else x.chunk(3, -1)[1]


def torchs_norm(x: Tensor, weight: Tensor) -> Tensor:
    if torch.__version__ < '2.8':  # it rounded to 16 bits before it multiplied by the weight, too
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), (D,), weight.to(wide), EPS).to(x.dtype)
    return F.rms_norm(x, (D,), weight, EPS)


def built(dtype: torch.dtype) -> RMSNorm:
    norm = RMSNorm(D, eps=EPS).to(dtype)
    torch.nn.init.normal_(norm.weight, 1, 0.2, generator=torch.Generator().manual_seed(1))
    return norm


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize('layout', ['dense', 'a part of qkv'])
@torch.no_grad()
def test_values(dtype, layout):
    norm, x = built(dtype), tokens(layout, dtype)
    assert rms_norm._pays(x)
    assert torch.equal(norm(x), torchs_norm(x, norm.weight))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
@pytest.mark.parametrize('trained', ['tokens', 'weight', 'both'])
def test_gradients(dtype, trained):
    norm = built(dtype)
    norm.weight.requires_grad = trained != 'tokens'
    upper = torch.randn(2, 13, D, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = []
    for forward in (norm, lambda x: torchs_norm(x, norm.weight)):
        x = tokens('a part of qkv', dtype).requires_grad_(trained != 'weight')
        out = forward(x)
        leaves = [leaf for leaf in (x, norm.weight) if leaf.requires_grad]
        found.append((out, *torch.autograd.grad(out, leaves, upper)))
    for mine, torchs in zip(*found, strict=True):
        assert torch.equal(mine, torchs) and mine.dtype == torchs.dtype


def test_torchs_own_norm_where_strips_do_not_pay():
    x = tokens('dense', torch.float32)
    assert not rms_norm._pays(x[:1, :7])  # stays in the cache
    assert not rms_norm._pays(x.transpose(1, 2))  # other bits: torch adds up another way
    assert not rms_norm._pays(x.to('meta'))
    assert torch.equal(built(torch.float32)(x[:1, :7]),
                       F.rms_norm(x[:1, :7], (D,), built(torch.float32).weight, EPS))


@torch.no_grad()
def test_strided_q_and_k_are_read_in_place():
    """All copies are of strips, into their dtype."""
    x, copied = tokens('a part of qkv', torch.bfloat16), []

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.copy_,
                                           torch.ops.aten._to_copy):
                copied.append(args[0].numel())
            return function(*args, **(kwargs or {}))

    norm = built(torch.bfloat16)
    with Operations():
        norm(x)
    assert copied and max(copied) == 8 * D
