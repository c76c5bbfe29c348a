"""Compiled blocks and CUDA graphs on a GPU, against eager blocks."""
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor

from mmseg_custom.distributed.acceleration import accelerate
from mmseg_custom.distributed.options import Engine
from mmseg_custom.distributed.precision import apply_precision

pytestmark = pytest.mark.gpu

FAMILIES = {
    '6b': dict(),
    '300m': dict(norm_type='layer_norm', qkv_bias=True, qk_normalization=False),
}


def backbone_of(family: str, device: str, dtype: torch.dtype, **engine) -> torch.nn.Module:
    """Builds a frozen backbone of four blocks whose outputs are all read."""
    torch.manual_seed(0)
    model = build_segmentor(segmentor_config(
        embed_dim=128, freeze_vit=True, out_indices=[0, 1, 2, 3], **FAMILIES[family]))
    apply_precision(model, dtype, device)
    model.to(device).eval()
    accelerate(model, list(model.backbone.blocks), Engine.of(engine), device)
    return model.backbone


def images(device: str, batch: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, 3, 56, 56, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize('family', FAMILIES)
def test_graphs_compute_what_their_kernels_do(device, family):
    """Bit for bit: the same kernels on the same numbers, launched at once."""
    plain, graphed = (backbone_of(family, device, torch.bfloat16, cuda_graphs=value)
                      for value in (False, True))
    for batch in (2, 4):  # the second graph uses the memory of the first one
        results = [graphed(images(device, batch, seed)) for seed in range(7)]
        for seed, found in enumerate(results):  # none was overwritten by a later replay
            for ours, theirs in zip(found, plain(images(device, batch, seed)), strict=True):
                assert torch.equal(ours, theirs), f'batch {batch}, run {seed}'
    results = graphed(images(device, 2, 9))
    assert all(torch.equal(*pair) for pair in zip(results, plain(images(device, 2, 9))))
    if device == 'cuda':
        assert len(graphed._wrapper._inner._graphs) == 2


@pytest.mark.parametrize('family', FAMILIES)
def test_fast_keeps_the_tolerances(device, family):
    """Maps of the compiled blocks in a graph, also of padded batches."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        torch._dynamo.reset()
        plain = backbone_of(family, device, dtype)
        fast = backbone_of(family, device, dtype, fast=True)
        for seed, batch in enumerate((4, 4, 4, 4, 4, 3, 4)):
            x = images(device, batch, seed)
            for ours, theirs in zip(fast(x), plain(x), strict=True):
                assert (ours - theirs).norm() < tolerance * theirs.norm()
