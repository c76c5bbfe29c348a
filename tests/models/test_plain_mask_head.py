"""The plain mask decoder as a head of mmseg."""
import logging

import pytest
import torch
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models import build_head

from mmseg_custom.errors import InputError
from mmseg_custom.layers.plain_mask import pixel_scores
from mmseg_custom.models.decode_heads.plain_mask_head import PlainMaskHead
from mmseg_custom.models.segmentors.windows import Axis, View, labels_of

OPTIONS = dict(type='PlainMaskHead', in_channels=[6, 5], in_index=[0, 1], channels=16,
               num_heads=2, num_blocks=3, num_queries=7, num_points=32, num_classes=5)


def head_and_maps(**changes):
    torch.manual_seed(0)
    maps = [torch.randn(2, channels, 4, 5) for channels in (6, 5)]
    return revert_sync_batchnorm(build_head({**OPTIONS, **changes})), maps


def labels_of_classes(*numbers):
    """Labels (2, 1, 16, 20) with so many classes in each image."""
    return torch.stack([torch.arange(16).expand(20, 16).T % number
                        for number in numbers]).unsqueeze(1)


METAS = [dict(filename='a.jpg'), dict(filename='b.jpg')]


def test_scores_in_testing():
    head, maps = head_and_maps()
    scores = head.eval().forward_test(maps, METAS, None)
    assert scores.shape == (2, 5, 16, 20) and scores.dtype == torch.float32
    assert 0 <= scores.min() and scores.max() <= OPTIONS['num_queries']


def test_every_weight_learns_and_no_other_is_there():
    head, maps = head_and_maps()
    losses = head.forward_train(maps, METAS, labels_of_classes(5, 2), None)
    assert set(losses) == {'loss_cls', 'loss_mask', 'loss_dice', 'acc_seg'}
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all((p.grad != 0).any() for p in head.parameters())
    assert not [name for name in head.state_dict() if 'conv_seg' in name or 'criterion' in name]


def test_crops_without_labels_train(caplog):
    head, maps = head_and_maps()
    with caplog.at_level(logging.INFO, 'mmseg'):
        for _ in range(2):
            losses = head.forward_train(maps, METAS, torch.full((2, 1, 16, 20), 255), None)
    assert losses['loss_mask'] == losses['loss_dice'] == 0 < losses['loss_cls']
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())
    assert caplog.text.count('no pixel of this crop is labelled') == 1 and 'a.jpg' in caplog.text


def test_more_classes_than_queries_are_refused():
    head, maps = head_and_maps(num_queries=3)
    with pytest.raises(InputError, match=r'b\.jpg: 4 classes in a crop, but num_queries=3.*'
                                         r'num_queries=4 or more'):
        head.forward_train(maps, METAS, labels_of_classes(2, 4), None)


def test_maps_of_several_sizes_are_refused():
    head, maps = head_and_maps()
    with pytest.raises(InputError, match='2 sizes.*with_fpn=False'):
        head([maps[0], maps[1][..., :3]])


@pytest.mark.parametrize('changes, message', [
    (dict(num_heads=3), 'channels=16 and num_heads=3'),
    (dict(input_transform='resize_concat'), "expected 'multiple_select'")])
def test_wrong_options_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        head_and_maps(**changes)


def test_one_map_will_do():
    head, maps = head_and_maps(in_channels=6, in_index=0, input_transform=None)
    assert head.eval()(maps).shape == (2, 5, 16, 20)


def test_annealing_goes_from_the_first_block_to_the_last():
    head, _ = head_and_maps()
    courses = []
    for progress in torch.linspace(0, 1, 41).tolist():
        head.anneal(progress)
        courses.append(head.attn_mask_probs.clone())
    courses = torch.stack(courses)
    assert (courses[0] == 1).all() and (courses[-1] == 0).all()
    assert (courses.diff(dim=0) <= 0).all()
    assert (courses.diff(dim=1) >= 0).all() and (courses.diff(dim=1) > 0).any(0).all()


def test_without_masked_attention_training_computes_what_testing_does():
    head, maps = head_and_maps()
    head.anneal(1.0)
    trained = head(maps, of_all_blocks=True)
    assert len(trained) == OPTIONS['num_blocks'] + 1
    tested = head._predictions(maps, of_all_blocks=False)
    assert len(tested) == 1
    for mine, other in zip(trained[-1], tested[0]):
        assert torch.allclose(mine, other, atol=1e-5)


def test_a_head_without_masked_attention_never_masks():
    head, maps = head_and_maps(masked_attention=False)
    head.eval().anneal(0.0)
    assert head.attn_mask_probs.tolist() == [0.0] * 3
    torch.testing.assert_close(pixel_scores(*head(maps, of_all_blocks=True)[-1]), head(maps))


def test_views_are_averaged_as_they_are():
    """The mean of softmaxes would give less weight to the view that is sure."""
    axis = Axis(4, 4, 4, 4, (0,))
    scores = torch.tensor([[3.0, 0.0], [0.0, 1.4], [0.0, 1.4]])
    views = [View(each[:, None, None].expand(2, 4, 4).contiguous(), axis.matrix(4, False),
                  axis.matrix(4, False), 1.0) for each in scores]
    assert (labels_of(views, are_probabilities=True) == 0).all()
    assert (labels_of(views) == 1).all()
    assert (labels_of(views[1:], are_probabilities=True) == 1).all()


def test_options_of_other_heads_are_no_arguments():
    for name, value in (('loss_decode', dict(type='CrossEntropyLoss')), ('out_channels', 1),
                        ('sampler', None), ('threshold', 0.3)):
        with pytest.raises(TypeError, match=name):
            PlainMaskHead(**{key: value for key, value in OPTIONS.items() if key != 'type'},
                          **{name: value})


def test_accuracy_is_that_at_the_resolution_of_the_masks():
    head, _ = head_and_maps()
    labels = labels_of_classes(5, 2).squeeze(1)
    labels[0, :8] = 255
    counted = labels != 255
    masks = torch.stack([torch.where(labels == number, 20.0, -20.0) for number in range(5)], dim=1)
    classes = torch.eye(5, 6).expand(2, 5, 6) * 40
    assert head._accuracy((masks, classes), labels) == 100
    masks[:, 4] = -40.0  # its pixels get another class
    expected = 100 * (counted & (labels != 4)).sum() / counted.sum()
    assert head._accuracy((masks, classes), labels).item() == pytest.approx(expected.item())
    assert head._accuracy((masks, classes), torch.full_like(labels, 255)) == 0
