"""Parts of the plain mask decoder, against direct computations."""
import torch
from torch.nn import functional as F

from mmseg_custom.layers.plain_mask import (
    MaskedBlock,
    MaskPredictor,
    attention_mask,
    masked_attention,
    pixel_scores,
)
from mmseg_custom.layers.rotary import patch_angles, rotate


def test_scores_are_sums_over_queries():
    masks, classes = torch.randn(2, 7, 5, 6), torch.randn(2, 7, 4)
    expected = torch.zeros(2, 3, 5, 6)
    for image in range(2):
        for query in range(7):
            for kind in range(3):
                share = classes[image, query].softmax(0)[kind]
                expected[image, kind] += share * masks[image, query].sigmoid()
    assert (pixel_scores(masks, classes) - expected).abs().max() < 1e-5


def test_masked_attention_is_that_of_a_whole_mask():
    q, k, v = torch.randn(3, 2, 4, 3 + 10, 8)
    mask = torch.rand(2, 3, 10) > 0.5
    whole = torch.ones(2, 1, 13, 13, dtype=torch.bool)
    whole[:, 0, :3, 3:] = mask
    assert torch.allclose(masked_attention(q, k, v, mask),
                          F.scaled_dot_product_attention(q, k, v, whole), atol=1e-6)


def test_a_query_without_patches_attends_to_queries():
    block = MaskedBlock(16, 2, 2.0)
    tokens = torch.randn(1, 2 + 4, 16, requires_grad=True)
    angles = patch_angles((2, 2), 8, tokens.device)
    mask = torch.tensor([[[False] * 4, [True] * 4]])
    out = block(tokens, angles, mask)
    out[0, 0].sum().backward()
    assert out.isfinite().all() and tokens.grad.isfinite().all()
    assert (tokens.grad[0, 2:] == 0).all() and (tokens.grad[0, :2] != 0).any(-1).all()


def test_probability_of_masked_attention():
    masks = torch.full((2, 500, 4, 4), -1.0)  # nothing in any mask
    for probability, least, most in ((0.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.3, 0.6, 0.8)):
        seen = attention_mask(masks, (2, 2), torch.tensor(probability)).float()
        assert (seen == seen[..., :1]).all()  # a query is masked as a whole
        assert least <= seen.mean() <= most


def test_rotary_positions_depend_on_distances_alone():
    x, y = torch.randn(2, 8)
    angles = patch_angles((4, 4), 8, x.device).view(4, 4, 4)
    products = [rotate(x[None], angles[i, j][None]) @ rotate(y[None], angles[i + 1, j + 2][None]).T
                for i, j in ((0, 0), (1, 1), (2, 0))]
    assert torch.allclose(torch.stack(products), products[0], atol=1e-5)
    assert not torch.allclose(products[0], x @ y, atol=1e-3)


def test_masks_have_the_resolution_of_the_upscaling():
    masks, classes = MaskPredictor(16, 5, 2)(torch.randn(2, 3 + 6, 16), (2, 3))
    assert masks.shape == (2, 3, 8, 12) and classes.shape == (2, 3, 6)
