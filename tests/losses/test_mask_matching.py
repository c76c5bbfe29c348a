"""Losses of masks are those of transformers."""
import pytest
import torch

from mmseg_custom.errors import InputError
from mmseg_custom.losses import mask_matching
from mmseg_custom.losses.mask_matching import (
    MaskLossOptions,
    assumed_masks,
    mask_losses,
    mask_targets,
    require_mask_libraries,
)

OPTIONS = MaskLossOptions(num_classes=5, num_points=64)


@pytest.fixture
def labels():
    """Two images of 16 x 16: classes 0, 2 and 4 with ignored pixels, and class 1 alone."""
    found = torch.zeros(2, 16, 16, dtype=torch.long)
    found[0, :6, 4:], found[0, 10:], found[0, :, :2] = 2, 4, 255
    found[1] = 1
    return found


def predictions(images=2, seed=0):
    torch.manual_seed(seed)
    return (torch.randn(images, 6, 8, 8, requires_grad=True),
            torch.randn(images, 6, 6, requires_grad=True))


def test_targets_are_the_classes_that_occur(labels):
    targets = mask_targets(labels, 5)
    assert targets.counts == [3, 1]
    assert [classes.tolist() for classes in targets.classes] == [[0, 2, 4], [1]]
    for masks, classes, own in zip(targets.masks, targets.classes, labels):
        assert torch.equal(masks, torch.stack([own == number for number in classes]))
    assert not targets.masks[0][:, :, :2].any()  # ignored pixels are in no mask
    assert mask_targets(labels, 5, ignore_index=2).counts == [2, 1]


def test_weights_may_be_whole_numbers(labels):
    whole = MaskLossOptions(num_classes=5, class_weight=2, mask_weight=5, dice_weight=5,
                            no_object_weight=1, num_points=64, oversample_ratio=3,
                            importance_sample_ratio=1)
    losses = mask_losses([predictions()], mask_targets(labels, 5), whole)
    assert all(value.isfinite() for value in losses.values())


def test_losses_are_those_of_transformers(labels):
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss
    config = Mask2FormerConfig(train_num_points=64, class_weight=2.0, mask_weight=5.0,
                               dice_weight=5.0, no_object_weight=0.1, num_labels=5)
    masks, classes = predictions()
    targets = mask_targets(labels, 5)
    torch.manual_seed(1)
    theirs = Mask2FormerLoss(config, {})(
        masks, classes, [each.float() for each in targets.masks], list(targets.classes))
    torch.manual_seed(1)
    ours = mask_losses([(masks, classes)], targets, OPTIONS)
    for name, weight, of_theirs in (('loss_cls', 2, 'loss_cross_entropy'),
                                    ('loss_mask', 5, 'loss_mask'), ('loss_dice', 5, 'loss_dice')):
        assert ours[name].item() == pytest.approx(weight * theirs[of_theirs].item(), rel=1e-6)
    gradients = [torch.autograd.grad(total, (masks, classes)) for total in (
        sum(ours.values()), 2 * theirs['loss_cross_entropy'] + 5 * theirs['loss_mask']
        + 5 * theirs['loss_dice'])]
    for mine, other in zip(*gradients):
        assert torch.allclose(mine, other, rtol=0, atol=1e-6)


def test_predictions_are_summed(labels):
    targets, first, second = mask_targets(labels, 5), predictions(), predictions(seed=1)
    torch.manual_seed(0)
    together = mask_losses([first, second], targets, OPTIONS)
    torch.manual_seed(0)
    alone = [mask_losses([each], targets, OPTIONS) for each in (first, second)]
    for name, value in together.items():
        assert value.item() == pytest.approx(sum(each[name].item() for each in alone), rel=1e-6)


@pytest.mark.parametrize('unlabelled', [1, 2])
def test_images_without_labels(labels, unlabelled):
    labels[:unlabelled] = 255
    masks, classes = predictions()
    losses = mask_losses([(masks, classes)], mask_targets(labels, 5), OPTIONS)
    sum(losses.values()).backward()
    assert masks.grad.isfinite().all() and classes.grad.isfinite().all()
    assert (masks.grad[:unlabelled] == 0).all() and (classes.grad != 0).any()
    assert (losses['loss_mask'] == 0) == (losses['loss_dice'] == 0) == (unlabelled == 2)


def test_assumed_masks_need_no_values():
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode(allow_non_fake_inputs=True), assumed_masks(3):
        labels = torch.empty(2, 16, 16, dtype=torch.long)
        targets = mask_targets(labels, 5)
        masks, classes = torch.empty(2, 6, 8, 8), torch.empty(2, 6, 6)
        losses = mask_losses([(masks, classes)], targets, MaskLossOptions(5, num_points=32))
    assert targets.counts == [3, 3] and set(losses) == {'loss_cls', 'loss_mask', 'loss_dice'}


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setattr(mask_matching, 'find_spec', lambda name: None if name == 'scipy' else name)
    with pytest.raises(InputError, match=r"needs scipy.* pip install 'mmseg_custom\[masks\]'"):
        require_mask_libraries()


def test_fixed_queries_are_those_of_the_classes(labels):
    options = MaskLossOptions(num_classes=5, num_points=64, matching='fixed')
    masks, classes = predictions()
    losses = mask_losses([(masks, classes)], mask_targets(labels, 5), options)
    of_masks, of_classes = torch.autograd.grad(sum(losses.values()), (masks, classes))
    compared = [[0, 2, 4], [1]]  # of each image; the others learn that there is no object
    for each, known in zip(of_masks, compared):
        assert each.flatten(1).any(1).nonzero().flatten().tolist() == known
    for image, known in zip(of_classes, compared):
        for query, gradient in enumerate(image):
            assert gradient.argmin() == (query if query in known else 5)
