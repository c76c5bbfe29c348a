import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.logs import logged

from mmseg_custom.layers import attention, norm


@pytest.fixture
def fresh_choice():
    attention.select_kernel.cache_clear()
    norm.rms_norm_class.cache_clear()
    yield
    attention.select_kernel.cache_clear()
    norm.rms_norm_class.cache_clear()


def test_sdpa_is_softmax_attention():
    q, k, v = torch.randn(3, 2, 5, 3, 8).unbind(0)
    weights = torch.einsum('bnhd,bmhd->bhnm', q, k).div(8 ** 0.5).softmax(-1)
    expected = torch.einsum('bhnm,bmhd->bnhd', weights, v)
    assert torch.allclose(attention.sdpa(q, k, v), expected, atol=1e-5)


@pytest.mark.parametrize('shape', [(2, 1, 5, 5), (2, 3, 5, 5)])
def test_masked_attention_is_softmax_attention_over_what_is_left(shape):
    q, k, v = torch.randn(3, 2, 5, 3, 8).unbind(0)
    mask = torch.rand(shape) < 0.5
    mask |= torch.eye(5, dtype=torch.bool)
    weights = torch.einsum('bnhd,bmhd->bhnm', q, k).div(8 ** 0.5)
    expected = torch.einsum('bhnm,bmhd->bnhd', weights.where(mask, -torch.inf).softmax(-1), v)
    assert torch.allclose(attention.sdpa(q, k, v, mask), expected, atol=1e-5)


def test_masked_calls_do_without_kernels_that_know_no_masks():
    module = attention.Attention(24, 3)
    x, everywhere = torch.randn(2, 5, 24), torch.ones(2, 1, 5, 5, dtype=torch.bool)
    expected = module(x)
    module.kernel = None
    torch.testing.assert_close(module(x, everywhere), expected)


def flash_attn_func(q, k, v, causal=False, deterministic=False):
    """Stands for that of a flash-attn with a deterministic backward pass."""


@pytest.fixture
def installed(monkeypatch, fresh_choice):
    """Installs modules of flash-attn, and hides those that the machine has."""
    def install(*modules: str, function=flash_attn_func) -> None:
        for module in ('flash_attn', 'flash_attn_interface'):
            monkeypatch.setitem(sys.modules, module, SimpleNamespace(flash_attn_func=function)
                                if module in modules else None)
    return install


@pytest.mark.parametrize('capability, backend, modules, expected', [
    ((9, 0), 'CUDNN_ATTENTION', ('flash_attn',), 'torch SDPA'),
    ((9, 0), 'CUDNN_ATTENTION', ('flash_attn', 'flash_attn_interface'), 'flash-attn 3'),
    ((9, 0), 'FLASH_ATTENTION', ('flash_attn',), 'flash-attn 2'),  # PyTorch before 2.11
    ((8, 0), 'FLASH_ATTENTION', ('flash_attn', 'flash_attn_interface'), 'flash-attn 2'),
    ((10, 0), 'CUDNN_ATTENTION', ('flash_attn', 'flash_attn_interface'), 'torch SDPA'),
    ((8, 9), 'FLASH_ATTENTION', (), 'torch SDPA'),
])
def test_fastest_kernel_of_a_gpu(installed, monkeypatch, capability, backend, modules, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
    monkeypatch.setattr(attention, 'sdpa_backend', lambda: backend)
    installed(*modules)
    with logged() as lines:
        kernel = attention.select_kernel(True)
        attention.select_kernel(True)
    assert len(lines) == 1
    assert lines[0].startswith(f'attention kernel: {expected} (use_flash_attn=True, ')
    assert (kernel is attention.sdpa) == (expected == 'torch SDPA')


def test_a_full_gpu_does_not_end_a_run_on_the_cpu(installed, monkeypatch):
    def full():
        raise torch.OutOfMemoryError('CUDA error: out of memory\nand more')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: (9, 0))
    monkeypatch.setattr(attention, 'sdpa_backend', full)
    installed('flash_attn')
    with logged() as lines:
        assert attention.select_kernel(True) is attention.sdpa
    assert lines == ['attention kernel: torch SDPA (use_flash_attn=True, the GPU takes no process: '
                     'CUDA error: out of memory)']


def test_flash_attn_is_asked_for(installed, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    installed('flash_attn', 'flash_attn_interface')
    assert attention.select_kernel(False) is attention.sdpa


def test_flash_attn_without_a_deterministic_backward_pass_is_not_used(installed):
    installed('flash_attn', function=lambda q, k, v: q)
    with logged() as lines:
        assert attention._fastest_kernel((8, 0), 'FLASH_ATTENTION')[0] == 'torch SDPA'
    assert lines == ['flash_attn is too old: 2.4.1 or newer is needed']


@pytest.mark.parametrize('deterministic', [False, True])
def test_flash_attn_is_deterministic_where_the_run_is(monkeypatch, deterministic):
    asked = []

    def func(q, k, v, deterministic=False):
        asked.append(deterministic)
        return q, None

    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: deterministic)
    on_gpu = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16)
    assert attention._on_flash(func)(on_gpu, on_gpu, on_gpu) is on_gpu
    assert asked == [deterministic]


def test_sdpa_backend_has_the_name_of_a_kernel_of_torch(monkeypatch):
    """PyTorch still answers the question: this one is about a tensor of the CPU."""
    empty = torch.empty
    monkeypatch.setattr(torch, 'empty', lambda *shape, **options: empty(*shape))
    assert attention.sdpa_backend() == 'FLASH_ATTENTION'


def test_flash_kernel_falls_back_on_the_cpu():
    def flash_attn_func(q, k, v):
        raise AssertionError('flash-attn has no CPU kernel')

    q = torch.randn(1, 4, 2, 8)
    assert torch.equal(attention._on_flash(flash_attn_func)(q, q, q), attention.sdpa(q, q, q))


def test_apex_norm_is_used_when_installed_and_a_broken_one_is_not(fresh_choice, monkeypatch):
    class FusedRMSNorm(torch.nn.RMSNorm):
        pass

    monkeypatch.setitem(sys.modules, 'apex.normalization',
                        SimpleNamespace(FusedRMSNorm=FusedRMSNorm))
    monkeypatch.setitem(sys.modules, 'apex', SimpleNamespace())
    assert isinstance(norm.build_norm('rms_norm', 8), FusedRMSNorm)
    norm.rms_norm_class.cache_clear()

    def without_cuda(*_, **__):
        raise ModuleNotFoundError("No module named 'fused_layer_norm_cuda'")

    monkeypatch.setitem(sys.modules, 'apex.normalization',
                        SimpleNamespace(FusedRMSNorm=without_cuda))
    assert norm.rms_norm_class() is norm.RMSNorm
    norm.rms_norm_class.cache_clear()
    monkeypatch.setitem(sys.modules, 'apex.normalization', SimpleNamespace())  # another 'apex'
    assert norm.rms_norm_class() is norm.RMSNorm


def test_unknown_norm():
    with pytest.raises(ValueError, match='batch_norm'):
        norm.build_norm('batch_norm', 8)
