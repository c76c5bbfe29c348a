"""Blocks that a backbone leaves to a head."""
import pytest
import torch
from torch import Tensor, nn

from mmseg_custom.distributed.precision import apply_precision
from mmseg_custom.models import InternViT6B

TINY = dict(embed_dim=96, depth=4, num_heads=3, img_size=56, out_indices=[3])
LORA = dict(type='lora', r=4)
TRAINED = [dict(), dict(train_last=2), dict(train_last=3), dict(adapt=LORA),
           dict(adapt=dict(LORA, blocks=[1, 3])), dict(train_last=1, train_norms=True)]


def build(**changes) -> InternViT6B:
    torch.manual_seed(0)
    return InternViT6B(**{**TINY, **changes})


def finish(network: InternViT6B, left: list[Tensor], mask: Tensor | None = None) -> Tensor:
    """Runs the blocks that are left; returns the feature map (B, D, h, w)."""
    grid = left[-1].shape[2:]
    tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in left], 1)
    for i in range(network.first_deferred, 4):
        tokens = network.run_deferred_block(i, tokens, mask)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


@pytest.fixture(scope='module')
def images() -> Tensor:
    return torch.randn(2, 3, 56, 70, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('options', TRAINED, ids=str)
def test_deferred_blocks_give_what_the_backbone_gives(options, images):
    network = build(**options).float().eval()
    cached = network.frozen_features(images)

    def run(inputs: Tensor | list[Tensor], grad: bool) -> Tensor:
        with torch.set_grad_enabled(grad):
            found = network(inputs)
            return finish(network, found) if network.num_deferred else found[0]

    expected = [run(images, grad) for grad in (False, True)]
    network.defer_blocks(2 if network.first_trained < 3 else 1)
    assert [x.shape for x in network(images)] == [(2, 96, 1, 1), (2, 96, 4, 5)]
    for inputs in (images, cached) if network.first_trained else (images,):
        assert all(torch.equal(run(inputs, grad), expected[grad]) for grad in (False, True))
    network.defer_blocks(0)
    assert torch.equal(run(images, True), expected[True])


@pytest.mark.parametrize('checkpointing', [dict(every_kth=1), dict(every_kth=2),
                                           dict(every_kth=1, first=2)], ids=str)
@pytest.mark.parametrize('options', TRAINED[:3], ids=str)
def test_deferred_blocks_are_recomputed_as_the_backbone_recomputes_its_own(options, checkpointing,
                                                                        images):
    calls, found = [], []
    for left in (0, 2):
        network = build(**options, with_cp=True).float().train()
        network.set_checkpointing(**checkpointing)
        network.defer_blocks(left)
        seen = []
        for i, block in enumerate(network.blocks):
            block.register_forward_pre_hook(lambda *_, i=i, seen=seen: seen.append(i))
        maps = network(images)
        output = finish(network, maps) if left else maps[0]
        output.square().mean().backward()
        calls.append(seen)
        found.append([p.grad for p in network.parameters() if p.grad is not None])
    assert calls[0] == calls[1] and len(calls[0]) > 4
    assert all(map(torch.equal, *found)) and found[0]


def test_a_mask_goes_through_checkpointing_and_casts(images):
    """The gradients of masked blocks are those of blocks without any of these."""
    mask = torch.rand(2, 1, 21, 21, generator=torch.Generator().manual_seed(0)) < 0.5
    mask |= torch.eye(21, dtype=torch.bool)
    found = []
    for with_cp in (True, False):
        model = nn.Module()
        model.backbone = build(with_cp=with_cp).train()
        apply_precision(model, torch.bfloat16)
        model.backbone.defer_blocks(2)
        finish(model.backbone, model.backbone(images), mask).float().square().mean().backward()
        found.append([p.grad for p in model.parameters()])
    assert all(x.dtype == torch.float32 for x in found[0])
    assert all(map(torch.equal, *found))
