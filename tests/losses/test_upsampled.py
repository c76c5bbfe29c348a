import pytest
import torch
from mmseg.models.losses import CrossEntropyLoss, accuracy
from torch.nn import functional as F

from mmseg_custom.losses import upsampled, upsampled_cross_entropy

SIZES = [((5, 7), (23, 31)), ((6, 6), (84, 84)), ((9, 4), (9, 4)), ((8, 8), (5, 3)),
         ((1, 1), (14, 14)), ((4, 4), (1, 1))]


def in_full(logits, labels, align_corners=False, **loss):
    """The way of mmseg, which keeps the upsampled logits."""
    full = F.interpolate(logits, labels.shape[1:], mode='bilinear', align_corners=align_corners)
    return (CrossEntropyLoss(**loss)(full, labels, ignore_index=255),
            accuracy(full, labels, ignore_index=255))


def sample(size=(6, 6), to=(84, 84), images=3, classes=7):
    logits = torch.randn(images, classes, *size, requires_grad=True)
    labels = torch.randint(0, classes, (images, *to))
    labels[torch.rand(labels.shape) < 0.1] = 255
    return logits, labels


def assert_same(found, expected, logits):
    assert torch.allclose(found[0], expected[0], rtol=1e-6)
    assert torch.allclose(found[1], expected[1], rtol=1e-5)
    ours, theirs = (torch.autograd.grad(part[0] * 3, logits, retain_graph=True)[0]
                    for part in (found, expected))
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize('floats', [1, 2000, 10**9])
@pytest.mark.parametrize('size, to', SIZES)
@pytest.mark.parametrize('align_corners', [False, True])
def test_is_what_mmseg_computes(monkeypatch, floats, size, to, align_corners):
    monkeypatch.setitem(upsampled.STRIP_FLOATS, 'cpu', floats)
    logits, labels = sample(size, to)
    labels[0, 0, 0] = 3
    found = upsampled_cross_entropy(logits, labels, align_corners=align_corners)
    assert_same(found, in_full(logits, labels, align_corners), logits)


@pytest.mark.parametrize('options', [
    dict(avg_non_ignore=True), dict(class_weight=[1., 0., 2., 3., 1., 1., .5]),
    dict(avg_non_ignore=True, class_weight=[1., 0., 2., 3., 1., 1., .5])])
def test_weights_and_means(options):
    logits, labels = sample()
    weight = options.get('class_weight')
    found = upsampled_cross_entropy(logits, labels, **{
        **options, 'class_weight': weight and torch.tensor(weight)})
    assert_same(found, in_full(logits, labels, **options), logits)


def test_several_heads_at_once():
    logits, labels = sample()
    heads = torch.stack([logits, logits * 2 + 1, -logits]).detach().requires_grad_()
    loss, hits = upsampled_cross_entropy(heads, labels)
    (loss * torch.tensor([1., 2., 3.])).sum().backward()
    for i in range(3):
        alone = heads[i].detach().requires_grad_()
        expected, expected_hits = in_full(alone, labels)
        (expected * (i + 1)).backward()
        assert torch.allclose(loss[i], expected, rtol=1e-6)
        assert torch.allclose(hits[i], expected_hits, rtol=1e-5)
        assert torch.allclose(heads.grad[i], alone.grad, rtol=1e-4, atol=1e-8)


def test_feature_maps_together_as_on_a_gpu(monkeypatch):
    plan = upsampled._plan
    monkeypatch.setattr(upsampled, '_plan', lambda count, height, floats, budget, together: plan(
        count, height, floats, 2 * height * floats, count))
    logits, labels = sample()
    heads = torch.stack([logits, -logits])
    found = upsampled_cross_entropy(heads, labels)
    for i, alone in enumerate((logits, -logits)):
        assert_same([part[i] for part in found], in_full(alone, labels), logits)


def test_an_image_has_the_same_gradient_in_any_batch():
    logits, labels = sample(images=8)
    found = torch.autograd.grad(upsampled_cross_entropy(logits, labels)[0], logits)[0]
    half = torch.autograd.grad(upsampled_cross_entropy(logits[4:], labels[4:])[0], logits)[0]
    assert torch.equal(found[4:], half[4:] / 2)


def test_nothing_to_learn_from():
    logits, labels = sample()
    found = upsampled_cross_entropy(logits, torch.full_like(labels, 255))
    assert found[0] == 0 and found[1] == 0  # an ignored pixel is never accurate
    assert not torch.autograd.grad(found[0], logits)[0].any()


def test_large_logits_and_nan():
    logits, labels = sample()
    assert_same(upsampled_cross_entropy(logits * 1000, labels), in_full(logits * 1000, labels),
                logits)
    broken = torch.full_like(logits, float('nan'))
    assert upsampled_cross_entropy(broken, labels)[0].isnan()
    both = upsampled_cross_entropy(torch.stack([broken, logits]), labels)[0]
    assert both.isnan().tolist() == [True, False]  # a head does no harm to another


def test_strips_have_the_size_of_another_device(monkeypatch):
    budgets, plan = [], upsampled._plan
    monkeypatch.setattr(upsampled, '_plan', lambda count, height, floats, budget, together: (
        budgets.append(budget) or plan(count, height, floats, budget, together)))
    with upsampled.strips_sized_for('cuda'):
        upsampled_cross_entropy(*sample())
    upsampled_cross_entropy(*sample())
    assert budgets == [upsampled.STRIP_FLOATS['cuda'], upsampled.STRIP_FLOATS['cpu']]


def test_gradient_of_a_gpu():
    logits, labels = sample()
    with upsampled.strips_sized_for('cuda'):
        found = upsampled_cross_entropy(logits, labels)
    assert_same(found, in_full(logits, labels), logits)


def test_strips_cover_each_row_once():
    for height, count, budget in [(504, 2, 2**20), (7, 5, 10), (1, 1, 1), (100, 64, 10**7)]:
        seen = torch.zeros(count, height)
        for group, rows in upsampled._plan(count, height, 150 * 504, budget, count):
            seen[group, rows] += 1
        assert seen.eq(1).all()


@pytest.mark.parametrize('size, to', [(36, 504), (36, 505), (144, 504), (5, 3), (1, 9), (7, 7)])
@pytest.mark.parametrize('align_corners', [False, True])
def test_strips_read_all_that_counts(size, to, align_corners):
    matrix = upsampled._interpolation(size, to, align_corners, torch.empty(()))
    read = upsampled._rows_read(size, to, align_corners)
    for row, (first, last) in zip(matrix, read):
        assert torch.isclose(row[first:last + 1].sum(), torch.ones(()))
        assert last - first <= 2
    assert read == sorted(read)
