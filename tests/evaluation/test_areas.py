"""Areas are those of mmseg's own function, whatever the labels are."""
import numpy as np
import pytest
import torch
from mmseg.core.evaluation.metrics import intersect_and_union

from mmseg_custom.evaluation import areas as measured
from mmseg_custom.evaluation.areas import Areas, areas


@pytest.mark.parametrize('classes, labels, ignored', [
    (150, (0, 150), 255), (150, (0, 256), 255), (19, (0, 40), 255), (7, (0, 7), 3),
    (300, (0, 300), 255), (5, (-1, 7), 255), (5, (0, 5), 1000)])
def test_the_areas_are_those_of_mmseg(classes, labels, ignored):
    rng = np.random.default_rng(0)
    ground_truth = rng.integers(*labels, (37, 50))
    ground_truth[:3] = ignored
    prediction = np.where(rng.random((37, 50)) < .5, ground_truth.clip(0, classes - 1),
                          rng.integers(0, classes, (37, 50)))
    expected = intersect_and_union(prediction, ground_truth.copy(), classes, ignored)
    found = areas(prediction, ground_truth, classes, ignored)
    for one, other in zip(found, expected):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_a_ground_truth_is_read_once_for_all_predictions(monkeypatch):
    read = []
    dataset = type('Data', (), dict(CLASSES=('a', 'b'), ignore_index=255))()
    monkeypatch.setattr(measured, 'read_ground_truth', lambda _, index: read.append(index) or (
        np.full((2, 2), index)))
    measure = Areas(dataset)
    for index in (0, 0, 0, 1, 1):
        (hits, *_), = measure([np.zeros((2, 2), np.int64)], [index])
        assert hits.tolist() == [4 * (index == 0), 0]
    assert read == [0, 1]
