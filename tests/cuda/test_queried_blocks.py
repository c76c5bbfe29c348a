"""Training of blocks that queries pass on a simulated CUDA device, at InternViT-6B's width."""
import pytest
from helpers.device_memory import DeviceMemory, Kinds, assert_as_predicted, predicted_for
from helpers.fake_cuda import local, on_cuda, simulate_ranks
from helpers.fake_runs import prepared, recipe, train

from mmseg_custom.doctor.fake_step import MASKS
from mmseg_custom.losses.mask_matching import assumed_masks
from mmseg_custom.models.decode_heads import plain_mask_head

EOMT = 'eomt/eomt_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5'


def loss_of_logits(predictions: list, *_: object, **__: object) -> dict:
    """Stands for the losses of matched masks, whose operators are not all simulated."""
    return dict(loss=sum(logits.square().mean() for each in predictions for logits in each))


@pytest.mark.slow
@pytest.mark.parametrize('name, ranks', [(f'{EOMT}_last4.py', 1), (f'{EOMT}.py', 8)])
def test_a_recipe_takes_what_is_predicted(cuda, tmp_path, name, ranks):
    cuda.setattr(plain_mask_head, 'mask_losses', loss_of_logits)
    run = prepared(recipe(name), tmp_path / 'run', ranks)
    predicted, memory = predicted_for(run), DeviceMemory()
    with on_cuda(memory) as seen, simulate_ranks(cuda, seen, ranks), assumed_masks(MASKS):
        runner = train(run, seen, [Kinds(memory)])
    assert all(local(tensor).is_cuda for tensor in runner.model.state_dict(keep_vars=True).values())
    assert_as_predicted(memory, predicted)
