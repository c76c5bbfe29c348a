"""Pixels that are ignored, in the accuracy of mmseg's heads."""
import pytest
import torch
from mmseg.models import build_head
from mmseg.models.losses import accuracy

OPTIONS = dict(in_channels=8, channels=8, num_classes=4, norm_cfg=dict(type='BN'))
HEADS = [dict(type='PSPHead', pool_scales=(1,)), dict(type='FCNHead', num_convs=1),
         dict(type='FCNHead', num_convs=1, loss_decode=dict(type='CrossEntropyLoss',
                                                            use_sigmoid=True))]


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('ignored', [255, 0])
def test_ignored_pixels_are_never_accurate(head, ignored):
    head = build_head({**OPTIONS, **head, 'ignore_index': ignored})
    logits = torch.randn(2, 4, 8, 8)
    labels = torch.full((2, 1, 8, 8), ignored)
    assert head.losses(logits, labels)['acc_seg'].item() == 0
    labels[0, 0, 0, :4], labels[0, 0, 0, 0] = logits.argmax(1)[0, 0, :4], ignored
    labels[0, 0, 0, 3] = 1 + logits[:, 1:].argmin(1)[0, 0, 3]
    counted = labels[:, 0] != ignored
    expected = (logits.argmax(1) == labels[:, 0])[counted].float().mean().item() * 100
    assert head.losses(logits, labels)['acc_seg'].item() == pytest.approx(expected, rel=1e-4)


def test_accuracies_of_several_ranks_and_without_ignored_pixels():
    logits, labels = torch.randn(1, 4, 5, 5), torch.randint(4, (1, 5, 5))
    from mmseg.models.decode_heads import decode_head
    for options in (dict(topk=(1, 2)), dict(topk=2, ignore_index=255), dict(ignore_index=3)):
        found = decode_head.accuracy(logits, labels, **options)
        expected = accuracy(logits, labels, **options)
        torch.testing.assert_close(found, expected)
    nothing = decode_head.accuracy(logits, labels * 0 + 255, topk=(1, 2), ignore_index=255)
    assert [part.item() for part in nothing] == [0, 0]
