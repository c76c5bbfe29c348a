"""The bootstrap: against a loop over draws, and on results whose difference is known."""
import numpy as np
import pytest

from mmseg_custom.evaluation import bootstrap


def some_areas(images=40, classes=6, quality=.7, seed=0):
    rng = np.random.default_rng(seed)
    union = rng.integers(50, 150, (images, classes)) * (rng.random((images, classes)) < .5)
    return rng.binomial(union, quality).astype(float), union.astype(float)


def test_interval_equals_a_loop_over_draws():
    intersect, union = some_areas()
    rng = np.random.default_rng(bootstrap.SEED)
    means = []
    for _ in range(200):
        drawn = rng.integers(0, 40, 40)
        means.append(np.nanmean(intersect[drawn].sum(0) / union[drawn].sum(0)))
    np.testing.assert_allclose(bootstrap.miou_interval(intersect, union, 200),
                               np.quantile(means, [.025, .975]))


def test_interval_contains_the_metric_and_shrinks_with_the_images():
    widths = []
    for images in (20, 200, 2000):
        low, high = bootstrap.miou_interval(*some_areas(images))
        assert low < .7 < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


@pytest.mark.parametrize('areas', [some_areas(1), (np.zeros((5, 3)), np.zeros((5, 3)))])
def test_no_interval_of_one_image_or_of_nothing(areas):
    assert bootstrap.miou_interval(*areas) is None


def test_classes_that_no_image_shows_are_left_out():
    intersect, union = some_areas()
    more = [np.hstack([areas, np.zeros((40, 3))]) for areas in (intersect, union)]
    assert bootstrap.miou_interval(*more) == bootstrap.miou_interval(intersect, union)


def test_comparison_finds_the_class_that_changed():
    intersect, union = some_areas(60)
    better = intersect.copy()
    better[:, 2] = np.minimum(union[:, 2], better[:, 2] + 20)
    found = bootstrap.compare((intersect, union), (better, union), union, draws=2000)
    assert found.significant.tolist() == [False, False, True, False, False, False]
    assert found.iou[2] > 0 and 0 < found.iou_range[0, 2] < found.iou[2] < found.iou_range[1, 2]
    assert found.iou[[0, 1, 3, 4, 5]].tolist() == [0] * 5 and found.iou_p[0] == 1
    assert 0 < found.miou_range[0] < found.miou < found.miou_range[1] and found.miou_p < .01
    assert found.images.tolist() == (union > 0).sum(0).tolist() and found.same_classes


def test_a_run_that_predicts_absent_classes_is_compared_over_the_classes_of_both():
    intersect, union = some_areas(60)
    better = np.minimum(union, intersect + 10)
    absent = np.zeros((60, 20))
    absent[:, 5:] = 1  # Predicted in each image, and never there.
    a = np.hstack([intersect, absent * 0]), np.hstack([union, absent * 0])
    b = np.hstack([better, absent * 0]), np.hstack([union, absent])
    found = bootstrap.compare(a, b, np.hstack([union, absent * 0]), draws=500)
    assert found.counted.sum(1).tolist() == [6, 21] and not found.same_classes
    alone = bootstrap.compare((intersect, union), (better, union), union, draws=500)
    assert found.miou == alone.miou > 0 and found.miou_range == alone.miou_range
    assert found.means[0] == pytest.approx(np.mean(intersect.sum(0) / union.sum(0)))
    assert found.images.tolist() == [*alone.images, *[0] * 20]


def test_a_class_in_few_images_is_never_significant():
    intersect, union = some_areas(60)
    union[:, 1] = intersect[:, 1] = 0
    union[:5, 1] = 100
    better = intersect.copy()
    better[:5, 1] = 90
    found = bootstrap.compare((intersect, union), (better, union), union, draws=500)
    assert not found.significant.any() and found.images[1] == 5


def test_false_discoveries_are_held_down():
    p = np.random.default_rng(0).random(1000)  # as of classes that did not change
    assert bootstrap._benjamini_hochberg(p, .05).sum() == 0
    assert bootstrap._benjamini_hochberg(np.array([1e-9, *p]), .05).nonzero()[0].tolist() == [0]
