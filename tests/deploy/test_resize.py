"""Bilinear resizing and rules of sizes, against OpenCV and mmcv."""
import cv2
import mmcv
import numpy as np
import pytest

from mmseg_custom.deploy.resize import covering_size, fitted_size, resize_bilinear


@pytest.mark.parametrize('kind', ['any', 'half', 'up', 'one'])
def test_pixels_are_those_of_opencv(kind):
    rng = np.random.default_rng(0)
    for _ in range(15):
        height, width, rows, columns = map(int, rng.integers(2, 150, 4))
        if kind == 'half':
            height, width = 2 * rows, 2 * columns
        elif kind == 'up':
            rows, columns = 3 * height + rows, 2 * width + columns
        elif kind == 'one':  # pixel in one direction
            height = 1
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        expected = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(resize_bilinear(image, rows, columns), expected), (image.shape, rows)


def test_large_images():
    image = np.random.default_rng(0).integers(0, 256, (351, 523, 3), np.uint8)
    for rows, columns in ((252, 368), (175, 256), (501, 350)):
        assert np.array_equal(resize_bilinear(image, rows, columns),
                              cv2.resize(image, (columns, rows)))


def test_sizes_are_those_of_mmcv():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 3000, (100, 2)).tolist():
        for scale in ((2016, 504), (448, 112), (700.5, 112)):
            expected = mmcv.rescale_size((width, height), scale)
            assert fitted_size(height, width, scale) == expected[::-1]


def test_a_short_side_is_reached():
    assert covering_size(100, 300, 56) == (56, 168)
    assert covering_size(300, 100, 56) == (168, 56)
    assert covering_size(33, 400, 112) == (112, 1358)
