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


def test_asking_for_flash_where_it_is_missing_is_no_error(fresh_choice, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: (9, 0))
    monkeypatch.setitem(sys.modules, 'flash_attn', None)
    monkeypatch.setitem(sys.modules, 'flash_attn_interface', None)
    with logged() as lines:
        assert attention.select_kernel(True) is attention.sdpa
        attention.select_kernel(True)
    assert lines == ['attention kernel: torch SDPA (use_flash_attn=True)']


@pytest.mark.parametrize('major, expected', [(9, 'flash_attn_interface'), (8, 'flash_attn')])
def test_newest_flash_attn_for_the_gpu(fresh_choice, monkeypatch, major, expected):
    for module in ('flash_attn', 'flash_attn_interface'):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(flash_attn_func=module))
    assert attention._find_flash_attn(major)[1] == expected


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
    monkeypatch.setitem(sys.modules, 'apex.normalization', SimpleNamespace())  # another 'apex'
    assert norm.rms_norm_class() is torch.nn.RMSNorm


def test_unknown_norm():
    with pytest.raises(ValueError, match='batch_norm'):
        norm.build_norm('batch_norm', 8)
