"""Boundary IoU against its definition: masks of one class, eroded one by one."""
import cv2
import numpy as np
import pytest

from mmseg_custom.evaluation.boundary import band, boundary_areas


def eroded_band(mask, distance):
    """The band of one mask by the letter of the paper: zeros around it, 3x3, `distance` times."""
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    return mask & (inner == 0)


def blobs(seed, height=70, width=110, classes=5):
    noise = np.random.default_rng(seed).normal(size=(classes, height, width))
    return np.argmax([cv2.GaussianBlur(layer, (0, 0), 6) for layer in noise], 0)


@pytest.mark.parametrize('distance', [1, 3, 9])
def test_band_is_that_of_each_class(distance):
    labels = blobs(0)
    found = band(labels, distance)
    for number in range(5):
        np.testing.assert_array_equal(found & (labels == number),
                                      eroded_band(labels == number, distance))


def test_areas_follow_the_definition():
    ground_truth, prediction = blobs(1), blobs(1)
    prediction[20:50, 30:80] = blobs(2)[20:50, 30:80]
    areas = boundary_areas(prediction, ground_truth, 5)
    for number in range(5):
        bands = [eroded_band(labels == number, round(.02 * np.hypot(70, 110)))
                 for labels in (prediction, ground_truth)]
        assert areas[:, number].tolist() == [(bands[0] & bands[1]).sum(), *map(np.sum, bands)]


def test_what_is_not_labelled_has_no_edge_and_does_not_count():
    ground_truth = np.zeros((100, 100), int)
    ground_truth[40:60, 40:60] = -1  # a hole in class 0, far from the border of the image
    prediction = ground_truth.copy()
    prediction[40:60, 40:60] = 3
    hit, of_prediction, of_ground_truth = boundary_areas(prediction, ground_truth, 4)
    rim = 100**2 - 94**2  # the border of the image alone: d is 3
    assert hit.tolist() == of_prediction.tolist() == of_ground_truth.tolist() == [rim, 0, 0, 0]


def test_many_classes():
    labels = blobs(3) + 300
    np.testing.assert_array_equal(band(labels, 4), band(labels - 300, 4))
    assert boundary_areas(labels, labels, 400)[0, 300:305].min() > 0
