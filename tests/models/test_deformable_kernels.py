import sys
from types import ModuleType

import pytest
import torch

from mmseg_custom.layers.deformable_attention import read_points
from mmseg_custom.models import deformable_kernels
from mmseg_custom.models.deformable_kernels import EXTENSION, select_kernel

GRIDS = [(4, 6), (2, 3)]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU, as far as the rule is concerned; the choice is made anew."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.delitem(sys.modules, EXTENSION, raising=False)
    select_kernel.cache_clear()
    yield monkeypatch
    select_kernel.cache_clear()


def inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [each.requires_grad_() for each in (
        torch.randn(2, 30, 2, 4), torch.rand(2, 5, 2, 2, 3, 2), torch.rand(2, 5, 2, 2, 3))]


def test_without_a_gpu_or_anything_compiled_it_is_plain_pytorch(gpu):
    assert select_kernel() is read_points
    select_kernel.cache_clear()
    gpu.setattr(torch.cuda, 'is_available', lambda: False)
    assert select_kernel() is read_points


def test_an_extension_that_is_found_is_used_on_the_gpu_alone(gpu):
    gpu.setitem(sys.modules, EXTENSION, ModuleType(EXTENSION))
    kernel = select_kernel()
    assert kernel is not read_points
    values, locations, weights = inputs()
    assert torch.equal(kernel(values, GRIDS, locations, weights),
                       read_points(values, GRIDS, locations, weights))


def test_the_extension_s_functions_get_what_they_expect():
    extension = ModuleType(EXTENSION)

    def forward(values, shapes, starts, locations, weights, step):
        assert shapes.tolist() == [[4, 6], [2, 3]] and starts.tolist() == [0, 24] and step == 2
        return read_points(values, GRIDS, locations, weights)

    def backward(values, shapes, starts, locations, weights, gradient, step):
        leaves = [each.detach().requires_grad_() for each in (values, locations, weights)]
        with torch.enable_grad():
            return torch.autograd.grad(read_points(leaves[0], GRIDS, *leaves[1:]), leaves, gradient)

    extension.ms_deform_attn_forward, extension.ms_deform_attn_backward = forward, backward
    results = []
    for kernel in (read_points, deformable_kernels._of_extension(extension)):
        leaves = inputs()
        out = kernel(leaves[0], GRIDS, *leaves[1:])
        out.square().sum().backward()
        results.append([out, *(each.grad for each in leaves)])
    assert all(map(torch.equal, *results))
