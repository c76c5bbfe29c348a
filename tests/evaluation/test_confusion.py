"""The cost of a confusion is the gain of mIoU when its pixels are corrected."""
import numpy as np

from mmseg_custom.evaluation.confusion import costly_pairs, image_scores


def miou(confusion):
    hit = np.diagonal(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return np.mean(hit[union > 0] / union[union > 0])


def test_cost_is_the_gain_of_miou():
    confusion = np.random.default_rng(0).integers(1, 40, (6, 6)) + 60 * np.eye(6, dtype=int)
    hit = np.diagonal(confusion)
    pairs = costly_pairs(confusion, hit, confusion.sum(0) + confusion.sum(1) - hit, 100)
    assert len(pairs) == 30
    assert [pair.cost for pair in pairs] == sorted((pair.cost for pair in pairs), reverse=True)
    for pair in pairs:
        mended = confusion.copy()
        mended[pair.ground_truth, pair.ground_truth] += pair.pixels
        mended[pair.ground_truth, pair.prediction] = 0
        assert np.isclose(miou(mended) - miou(confusion), pair.cost)
        assert np.isclose(pair.share, pair.pixels / confusion[pair.ground_truth].sum())


def test_no_confusion_costs_nothing():
    confusion = np.diag([5, 0, 7])
    assert costly_pairs(confusion, np.array([5, 0, 7]), np.array([5, 0, 7]), 10) == []


def test_image_scores_count_the_classes_of_the_ground_truth():
    intersect = np.array([[4., 0, 0], [0, 0, 0]])
    union, ground_truth = np.array([[8., 2, 5], [0, 9, 0]]), np.array([[6., 2, 0], [0, 0, 0]])
    scores = image_scores(intersect, union, ground_truth)
    assert scores[0] == .25 and np.isnan(scores[1])
