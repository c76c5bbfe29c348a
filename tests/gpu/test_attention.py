"""The attention kernels that a GPU offers, at the heads of InternViT-6B."""
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmseg_custom.layers import attention

pytestmark = pytest.mark.gpu

SHAPE = (2, 290, 4, 128)  # batch, tokens (not a multiple of 64), heads, channels of a head
FUSED = ['CUDNN_ATTENTION', 'FLASH_ATTENTION', 'EFFICIENT_ATTENTION']
MODULES = {'flash-attn 2': 'flash_attn', 'flash-attn 3': 'flash_attn_interface'}


def run(kernel, device: str) -> list[torch.Tensor]:
    """Output and gradients of a kernel in bfloat16, as float32 tensors of the CPU."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, weights = (torch.randn(SHAPE, generator=generator) for _ in range(4))
    inputs = [x.to(device, torch.bfloat16).requires_grad_() for x in (q, k, v)]
    output = kernel(*inputs)
    output.backward(weights.to(output))
    return [x.float().cpu() for x in (output.detach(), *(x.grad for x in inputs))]


def exact() -> list[torch.Tensor]:
    """The same in float32 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    *inputs, weights = (torch.randn(SHAPE, generator=generator) for _ in range(4))
    inputs = [x.bfloat16().float().requires_grad_() for x in inputs]
    output = attention.sdpa(*inputs)
    output.backward(weights.bfloat16().float())
    return [output.detach(), *(x.grad for x in inputs)]


def assert_close(found: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, exact(), strict=True):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


@pytest.mark.parametrize('backend', FUSED)
def test_each_kernel_of_torch(device, backend):
    if device == 'cpu' and backend != 'FLASH_ATTENTION':
        pytest.skip('a kernel of GPUs')
    with sdpa_kernel(getattr(SDPBackend, backend)):
        found = run(attention.sdpa, device)
    assert_close(found)


@pytest.mark.parametrize('name', MODULES)
def test_each_flash_attn(device, name):
    if device == 'cpu' or (found := attention._flash_attn(MODULES[name])) is None:
        pytest.skip(f'no {name} here')
    if name == 'flash-attn 3' and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip('flash-attn 3 is for Hopper')
    assert_close(run(attention._on_flash(found), device))


def test_the_kernel_that_is_chosen(device):
    attention.select_kernel.cache_clear()
    assert_close(run(attention.select_kernel(True), device))


def test_deterministic(device):
    """In the strict mode every backward pass gives the same bits."""
    torch.use_deterministic_algorithms(True)
    first = run(attention.sdpa, device)
    for _ in range(5):
        assert all(map(torch.equal, run(attention.sdpa, device), first))
