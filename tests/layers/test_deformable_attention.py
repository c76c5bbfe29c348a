"""Deformable attention against mmcv's module, which is written apart from it."""
import mmseg_custom  # noqa: F401  (before mmcv.ops, see compat)

# isort: split
import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    multi_scale_deformable_attn_pytorch,
)
from torch import nn

from mmseg_custom.layers.deformable_attention import DeformableAttention, cell_centers, read_points

LEVELS, QUERIES = [(6, 4), (3, 2)], [(3, 4)]


def test_values_and_gradients_equal_mmcv_s():
    torch.manual_seed(0)
    ours = DeformableAttention(24, num_heads=3, num_levels=2, num_points=4, ratio=1.0,
                               kernel=read_points)
    theirs = MultiScaleDeformableAttention(24, num_heads=3, num_levels=2, num_points=4,
                                           dropout=0.0, batch_first=True)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs.load_state_dict(ours.state_dict())
    queries, values = torch.randn(2, 12, 24), torch.randn(2, 30, 24)
    found, expected = [], []
    for results, module in ((found, ours), (expected, theirs)):
        inputs = [each.clone().requires_grad_() for each in (queries, values)]
        if module is ours:
            out = ours(*inputs, QUERIES, LEVELS)
        else:
            out = theirs(inputs[0], value=inputs[1], identity=torch.zeros_like(queries),
                         reference_points=cell_centers(QUERIES, 'cpu')[None, :, None].expand(
                             2, -1, 2, -1),
                         spatial_shapes=torch.tensor(LEVELS), level_start_index=None)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results += [out, *(each.grad for each in inputs), *(p.grad for p in module.parameters())]
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('reach', [1.0, 1.6], ids=['inside', 'across the border'])
def test_points_are_read_as_by_mmcv_s_function_to_the_bit(reach):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 30, 3, 8), (torch.rand(2, 5, 3, 2, 4, 2) - 0.5) * reach + 0.5,
              torch.rand(2, 5, 3, 2, 4)]
    results = []
    for read in (read_points, multi_scale_deformable_attn_pytorch):
        values, locations, weights = (each.clone().requires_grad_() for each in inputs)
        out = read(values, LEVELS, locations, weights)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append([out, values.grad, locations.grad, weights.grad])
    assert all(map(torch.equal, *results)) and results[0][0].is_contiguous()


def test_values_may_be_narrower_than_the_tokens():
    module = DeformableAttention(24, 3, 2, 4, ratio=0.5, kernel=read_points)
    assert module.value_proj.weight.shape == (12, 24) and module.output_proj.weight.shape == (
        24, 12)
    assert module(torch.randn(1, 12, 24), torch.randn(1, 30, 24), QUERIES, LEVELS).shape == (
        1, 12, 24)
    with pytest.raises(ValueError, match='3 heads.*the values, 8'):
        DeformableAttention(24, 3, 2, 4, ratio=1 / 3, kernel=read_points)


def test_points_start_on_rays_one_cell_further_each():
    module = DeformableAttention(8, 4, 2, 3, ratio=1.0, kernel=read_points)
    points = module.sampling_offsets.bias.view(4, 2, 3, 2)
    assert torch.equal(points[:, 0], points[:, 1])
    expected = torch.tensor([[1., 0.], [0., 1.], [-1., 0.], [0., -1.]])
    for step in range(3):
        torch.testing.assert_close(points[:, 0, step], expected * (step + 1), rtol=0, atol=1e-6)


def test_points_in_bfloat16_are_read_where_they_are():
    """A constant ramp of values shows where each query reads."""
    module = DeformableAttention(8, 1, 1, 1, ratio=1.0, kernel=read_points)
    with torch.no_grad():
        for layer in (module.value_proj, module.output_proj):
            layer.weight.copy_(torch.eye(8))
        module.sampling_offsets.bias.zero_()
    ramp = torch.arange(64.).repeat(64).view(1, -1, 1).expand(-1, -1, 8).contiguous()
    found = module.bfloat16()(torch.zeros(1, 4096, 8).bfloat16(), ramp.bfloat16(), [(64, 64)],
                              [(64, 64)])
    assert torch.equal(found.float(), ramp)
