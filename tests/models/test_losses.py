"""Pixels that are ignored have no part in any loss, whatever the network says there."""
import numpy as np
import pytest
import torch
from mmseg.models import build_head
from mmseg.models import losses as theirs
from mmseg.models.builder import build_loss

LOSSES = {
    'CE': dict(type='CrossEntropyLoss'),
    'CE of those that count': dict(type='CrossEntropyLoss', avg_non_ignore=True),
    'BCE': dict(type='CrossEntropyLoss', use_sigmoid=True),
    'BCE weighted': dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=[1., 2., 3., 4.]),
    'Dice': dict(type='DiceLoss'),
    'Dice weighted': dict(type='DiceLoss', class_weight=[1., 2., 3., 4.], smooth=.5, exponent=1),
    'Dice as it is': dict(type='DiceLoss', smooth=0., exponent=1),
    'Tversky': dict(type='TverskyLoss', class_weight=[1., 2., 3., 4.]),
    'Focal': dict(type='FocalLoss'),
    'Lovasz': dict(type='LovaszLoss', reduction='none'),
    'Lovasz of all': dict(type='LovaszLoss', reduction='none', classes='all'),
    'Lovasz of images': dict(type='LovaszLoss', per_image=True, class_weight=[1., 2., 3., 4.]),
}
ONE_CHANNEL = {
    'BCE': dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=[2.]),
    'Lovasz': dict(type='LovaszLoss', loss_type='binary', reduction='none'),
}


def head(loss, kind='FCNHead', **options):
    return build_head({**dict(type=kind, in_channels=8, channels=8, num_classes=4,
                              norm_cfg=dict(type='BN'), loss_decode=dict(loss)), **options})


def loss_of(head, logits, labels):
    found = head.losses(logits, labels[:, None])
    return sum(value for name, value in found.items() if 'loss' in name).mean()


def sample(ignored, classes=4, channels=4):
    logits = torch.randn(2, channels, 6, 7, requires_grad=True)
    labels = torch.randint(1, classes, (2, 6, 7))
    labels[:, :3] = ignored
    return logits, labels


@pytest.mark.parametrize('kind', ['FCNHead', 'PSPHead'])  # ours, and mmseg's own
@pytest.mark.parametrize('ignored', [255, 0])
@pytest.mark.parametrize('name', LOSSES)
def test_ignored_pixels_do_not_move_the_loss(name, ignored, kind):
    one = head(LOSSES[name], kind, ignore_index=ignored)
    logits, labels = sample(ignored)
    loss = loss_of(one, logits, labels)
    gradient, = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and gradient[:, :, 3:].abs().sum() > 0
    assert not gradient[:, :, :3].any()
    other = logits.detach().clone()
    other[:, :, :3] = 50 * torch.randn(2, 4, 3, 7)
    torch.testing.assert_close(loss_of(one, other, labels), loss.detach())


@pytest.mark.parametrize('name', LOSSES)
def test_labels_that_are_all_ignored_have_no_loss(name):
    logits, labels = sample(255)
    half = labels.clone()
    half[0] = 255  # one image
    for part in (torch.full_like(labels, 255), half):
        loss = loss_of(head(LOSSES[name]), logits, part)
        gradient, = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all() and not gradient[0].any()
        assert bool(loss) == bool((part != 255).any())


@pytest.mark.parametrize('name', LOSSES)
def test_a_single_pixel_that_counts(name):
    logits, labels = sample(255)
    labels[:] = 255
    labels[1, 4, 4] = 2
    gradient, = torch.autograd.grad(loss_of(head(LOSSES[name]), logits, labels), logits)
    assert gradient[1, :, 4, 4].any() and not gradient[0].any()


@pytest.mark.parametrize('name', ONE_CHANNEL)
def test_one_channel(name):
    one = head(ONE_CHANNEL[name], num_classes=2, out_channels=1, threshold=.5)
    logits, labels = sample(255, 2, 1)
    gradient, = torch.autograd.grad(loss_of(one, logits, labels), logits)
    assert gradient[:, :, 3:].any() and not gradient[:, :, :3].any()
    assert loss_of(one, logits, torch.full_like(labels, 255)) == 0


def test_accuracy_of_one_channel_is_by_the_threshold():
    one = head(ONE_CHANNEL['BCE'], num_classes=2, out_channels=1, threshold=.8)
    logits, labels = sample(255, 2, 1)
    labels[:, 4:] = 0
    right = (logits[:, 0].sigmoid() > .8) == labels
    found = one.losses(logits, labels[:, None])['acc_seg']
    assert found.item() == pytest.approx(100 * right[labels != 255].float().mean().item())


@pytest.mark.parametrize('name', ['CE', 'BCE', 'Dice', 'Tversky', 'Focal', 'Lovasz',
                                  'Lovasz of all', 'Lovasz of images'])
def test_without_ignored_pixels_it_is_the_loss_of_mmseg(name):
    logits, labels = sample(1)
    options = dict(LOSSES[name])
    expected = getattr(theirs, options.pop('type'))(**options)
    torch.testing.assert_close(loss_of(head(LOSSES[name]), logits, labels),
                               expected(logits, labels).mean())


def test_dice_by_numpy():
    logits, labels = sample(255)
    p = logits.detach().numpy()
    p = np.exp(p) / np.exp(p).sum(1, keepdims=True)
    total = 0.
    for b in range(2):
        counts = labels[b].numpy() != 255
        for k in range(4):
            of_class, true = p[b, k][counts], (labels[b].numpy() == k)[counts]
            total += 1 - (2 * of_class[true].sum() + 1) / ((of_class**2).sum() + true.sum() + 1)
    assert build_loss(LOSSES['Dice'])(logits, labels).item() == pytest.approx(total / 8, rel=1e-5)


def test_binary_cross_entropy_of_whole_images_is_that_of_mmseg():
    """That of EncHead: one number for each class of an image."""
    logits, labels = torch.randn(3, 4), torch.randint(2, (3, 4))
    options = dict(use_sigmoid=True, class_weight=[1., 2., 3., 4.])
    torch.testing.assert_close(build_loss(dict(type='CrossEntropyLoss', **options))(logits, labels),
                               theirs.CrossEntropyLoss(**options)(logits, labels))


def test_class_weights_of_binary_cross_entropy_are_of_channels():
    logits, labels = sample(255)
    found = build_loss(LOSSES['BCE weighted'])(logits, labels, ignore_index=255)
    expected = torch.zeros(2, 6, 7)
    for k in range(4):
        expected += torch.nn.functional.binary_cross_entropy_with_logits(
            logits[:, k], (labels == k).float(), pos_weight=torch.tensor(k + 1.), reduction='none')
    torch.testing.assert_close(found, (expected * (labels != 255)).sum() / logits.numel())
