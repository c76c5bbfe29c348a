import numpy as np
import pytest

from mmseg_custom.visualization.overlay import legend
from mmseg_custom.visualization.side_by_side import side_by_side

PALETTE = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]])


@pytest.mark.parametrize('height, width, times', [
    (300, 400, 1), (20, 30, 9), (1, 1, 256), (40, 3000, 1), (3000, 40, 1)])
def test_label_maps_beside_each_other(height, width, times):
    image = np.full((height, width, 3), 100, np.uint8)
    maps = {'Ground truth': np.full((height, width), 255), 'Prediction': np.zeros((height, width))}
    maps = {title: labels.astype(int) for title, labels in maps.items()}
    page = side_by_side(image, maps, ['sea', 'land', 'ice'], PALETTE, 0.5)
    paint = np.all(page == (150, 50, 50), axis=-1)  # half of the colour, half of the image
    assert paint.sum() == height * width * times ** 2
    assert page.shape[1] >= 2 * width * times and page.shape[0] > height * times
    rows, columns = np.nonzero(paint)
    assert columns.min() > page.shape[1] / 2 - 1 and rows.max() - rows.min() + 1 == height * times
    alone = side_by_side(image, {'Prediction': maps['Prediction']}, ['sea', 'land', 'ice'],
                         PALETTE, 0.5)
    assert alone.shape[1] < page.shape[1] or page.shape[1] == 320


def test_names_that_are_too_long_are_cut():
    picture = np.asarray(legend([0, 1], ['a' * 300, 'land'], PALETTE, 200))
    assert picture.shape[1] == 200
    assert (picture[:, -1] == 255).all() and (picture[:, -40:] < 255).any()  # nothing is cut off
