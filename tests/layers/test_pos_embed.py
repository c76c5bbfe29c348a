import pytest
import torch
import torch.nn.functional as F

from mmseg_custom.layers.pos_embed import PosEmbedCache, resample_pos_embed


def test_is_bicubic_without_antialiasing_also_when_it_shrinks():
    embed = torch.randn(1, 1 + 16, 8)
    found = resample_pos_embed(embed, (3, 2))
    grid = embed[:, 1:].transpose(1, 2).reshape(1, 8, 4, 4)
    expected = F.interpolate(grid, (3, 2), mode='bicubic', align_corners=False, antialias=False)
    assert torch.equal(found[:, 1:].transpose(1, 2).reshape(1, 8, 3, 2), expected)
    assert torch.equal(found[:, :1], embed[:, :1])


def test_own_grid_is_returned_as_it_is():
    embed = torch.randn(1, 17, 8)
    assert resample_pos_embed(embed, (4, 4)) is embed


def test_bfloat16_is_interpolated_in_float32():
    embed = torch.randn(1, 17, 8).bfloat16()
    expected = resample_pos_embed(embed.float(), (6, 6)).bfloat16()
    assert torch.equal(resample_pos_embed(embed, (6, 6)), expected)


def test_grid_that_is_no_square():
    with pytest.raises(ValueError, match='15 patches: expected a square'):
        resample_pos_embed(torch.zeros(1, 16, 8), (4, 4))


def test_cache_follows_the_embedding():
    cache = PosEmbedCache(max_grids=2)
    embed = torch.nn.Parameter(torch.randn(1, 17, 8))
    with torch.no_grad():
        first = cache(embed, (6, 6))
        assert cache(embed, (6, 6)) is first
        embed.add_(1.0)
        assert torch.equal(cache(embed, (6, 6)), resample_pos_embed(embed, (6, 6)))
        embed.data = embed.data.double()
        assert cache(embed, (6, 6)).dtype == torch.float64
        for side in (5, 7, 8):
            cache(embed, (side, side))
        assert len(cache._grids) == 2


def test_cache_lets_gradients_through():
    embed = torch.nn.Parameter(torch.randn(1, 17, 8))
    PosEmbedCache()(embed, (6, 6)).sum().backward()
    assert embed.grad.abs().sum() > 0
