"""Batches without autograd run in few sizes, with the results of their own size."""
import pytest
import torch
from helpers.tiny_networks import segmentor_config
from mmseg.models import build_segmentor

from mmseg_custom.models.fixed_batches import FixedBatches


def sizes_of(batches: list[int]) -> list[int]:
    """Returns the sizes that the blocks are run with."""
    fixed, found = FixedBatches(), []

    def run(tokens: torch.Tensor) -> list[torch.Tensor]:
        found.append(len(tokens))
        return [tokens + 1]

    for batch in batches:
        tokens = torch.randn(batch, 3, 4)
        assert torch.equal(fixed(run, tokens)[0], tokens + 1)
    return found


def test_few_sizes():
    assert set(sizes_of(list(range(1, 17)))) == {1, 2, 3, 4, 6, 8, 12, 16}


def test_the_batch_of_a_training_is_not_padded():
    assert sizes_of([5, 5, 2, 5, 1, 7]) == [5, 5, 2, 5, 1, 8]


@pytest.mark.parametrize('freeze', [False, True])
@torch.no_grad()
def test_padded_windows_have_the_same_labels(freeze):
    torch.manual_seed(0)
    model = build_segmentor(segmentor_config(
        test_cfg=dict(mode='slide', crop_size=(28, 28), stride=(14, 14), window_batch=4),
        img_size=28, freeze_vit=freeze)).eval()
    image = torch.randn(1, 3, 42, 70)  # 8 windows
    meta = dict.fromkeys(('ori_shape', 'img_shape', 'pad_shape'), (42, 70, 3)) | dict(flip=False)
    run = []

    def wrapped(blocks, tokens):
        run.append(len(tokens))
        return fixed(blocks, tokens)

    fixed = FixedBatches()
    plain = model([image], [[meta]], return_loss=False)[0]
    model.backbone.wrap_blocks(wrapped)
    model.test_cfg.window_batch = 3  # 3, 3, 2
    padded = model([image], [[meta]], return_loss=False)[0]
    assert run == [3, 3, 2] and (padded == plain).all()
