"""Records of images equal what mmseg measures, and survive the way between ranks."""
import pickle

import numpy as np
import pytest
import torch
from mmseg.core.evaluation.metrics import intersect_and_union

from mmseg_custom.errors import InputError
from mmseg_custom.evaluation.record import decode_maps, measure


def some_maps(height=60, width=90, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, classes, (6, 9)), np.ones((10, 10), int))
    ground_truth = blocks[:height, :width]
    prediction = np.where(rng.random(ground_truth.shape) < .8, ground_truth,
                          rng.integers(0, classes, ground_truth.shape))
    ground_truth[:5], ground_truth[-3:] = 255, classes + 4  # ignored; no class, and not ignored
    return prediction, ground_truth


def test_areas_equal_those_of_mmseg():
    prediction, ground_truth = some_maps()
    for mine, theirs in zip(measure(prediction, ground_truth, 7),
                            intersect_and_union(prediction, ground_truth, 7, 255)):
        assert torch.equal(mine, theirs)


def test_pairs_are_the_confusion():
    prediction, ground_truth = some_maps()
    record = measure(prediction, ground_truth, 7)
    assert record.pixels.sum() == (ground_truth != 255).sum() and record.pixels.min() > 0
    for (label, guess), pixels in zip(record.pairs, record.pixels):
        rows = ground_truth == label if label < 7 else (ground_truth >= 7) & (ground_truth != 255)
        assert pixels == (rows & (prediction == guess)).sum()


def test_record_survives_pickle():
    record = pickle.loads(pickle.dumps(measure(*some_maps(), 7, 'a.jpg', boundary=True)))
    assert record.name == 'a.jpg' and len(record) == 4 and record.boundary.shape == (3, 7)
    assert record.pixels.sum() == measure(*some_maps(), 7).pixels.sum()


def test_maps_for_pictures_are_whole_or_smaller():
    prediction, ground_truth = some_maps()
    kept_ground_truth, kept = decode_maps(measure(prediction, ground_truth, 7).maps)
    np.testing.assert_array_equal(kept, prediction)
    np.testing.assert_array_equal(kept_ground_truth, ground_truth)
    large = measure(np.zeros((40, 2000), int), np.full((40, 2000), 300), 400).maps
    kept_ground_truth, kept = decode_maps(large)
    assert kept.shape == (10, 512) and set(kept_ground_truth.ravel()) == {300}


@pytest.mark.parametrize('prediction, message', [
    (np.zeros((4, 5), int), r'prediction of x.jpg is \(4, 5\) pixels, its label \(4, 4\)'),
    (np.full((4, 4), 7), 'holds class 7: expected 0..6'),
])
def test_prediction_that_does_not_fit_is_named(prediction, message):
    with pytest.raises(InputError, match=message):
        measure(prediction, np.zeros((4, 4), int), 7, 'x.jpg')
