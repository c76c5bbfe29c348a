"""The deterministic forms; where they run is tested in tests/engine/test_determinism.py."""
import pytest
import torch
import torch.nn.functional as F

from mmseg_custom.layers import resize

SIZES = [((5, 7), (23, 31)), ((36, 36), (72, 72)), ((9, 4), (9, 4)), ((8, 8), (5, 3)),
         ((1, 1), (14, 9))]
CASES = {
    'bilinear': (resize.resize_bilinear,
                 lambda x, size: F.interpolate(x, size, mode='bilinear', align_corners=False)),
    'bilinear, aligned': (lambda x, size: resize.resize_bilinear(x, size, align_corners=True),
                          lambda x, size: F.interpolate(x, size, mode='bilinear',
                                                        align_corners=True)),
    'bicubic': (resize.resize_bicubic,
                lambda x, size: F.interpolate(x, size, mode='bicubic', align_corners=False)),
    'pooling': (lambda x, size: resize.AdaptiveAvgPool2d(size)(x), F.adaptive_avg_pool2d),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('size, to', [*SIZES, ((18, 18), (6, 6)), ((7, 5), (3, 2))])
def test_form_with_products_is_what_torch_computes(monkeypatch, case, size, to):
    ours, theirs = CASES[case]
    maps = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = theirs(maps, to)
    monkeypatch.setattr(resize, '_deterministic_on_gpu', lambda maps: True)
    found = ours(maps, to)
    assert type(found.grad_fn) is not type(expected.grad_fn)
    assert torch.allclose(found, expected, atol=1e-12)
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * weights).sum(), maps)[0] for y in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(ours(maps, to), expected)  # the kernel of PyTorch


@pytest.mark.parametrize('case', CASES)
def test_on_the_cpu_nothing_changes(case):
    ours, theirs = CASES[case]
    maps = torch.randn(2, 3, 5, 7, requires_grad=True)
    found, expected = ours(maps, (4, 9)), theirs(maps, (4, 9))
    assert torch.equal(found, expected) and found.grad_fn.name() == expected.grad_fn.name()


def test_pool_of_one_number_or_of_one_axis(monkeypatch):
    maps = torch.randn(1, 2, 6, 9, dtype=torch.float64, requires_grad=True)
    for size in (3, (None, 3)):
        expected = F.adaptive_avg_pool2d(maps, size)
        with monkeypatch.context() as patch:
            patch.setattr(resize, '_deterministic_on_gpu', lambda maps: True)
            assert torch.allclose(resize.AdaptiveAvgPool2d(size)(maps), expected)
