"""Label files hold the classes, overlays the legend, and bad images are refused in one line."""
import numpy as np
import pytest
from PIL import Image

from mmseg_custom.errors import InputError
from mmseg_custom.visualization.files import read_image, save_labels, save_with_legend

PALETTE = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]])


@pytest.mark.parametrize('first', [0, 1])
def test_labels_are_indices_into_the_palette(tmp_path, first):
    labels = np.array([[0, 1, 2], [2, 2, 0]])
    save_labels(labels, PALETTE, str(tmp_path / 'a.png'), first)
    picture = Image.open(tmp_path / 'a.png')
    assert picture.mode == 'P'
    np.testing.assert_array_equal(np.asarray(picture), labels + first)
    np.testing.assert_array_equal(np.asarray(picture.convert('RGB')), PALETTE[labels])


def test_many_classes_are_16_bit(tmp_path):
    save_labels(np.array([[0, 299]]), np.zeros((300, 3)), str(tmp_path / 'a.png'), 1)
    assert np.asarray(Image.open(tmp_path / 'a.png')).tolist() == [[1, 300]]


def test_picture_keeps_the_image_and_adds_the_legend(tmp_path):
    painted = np.full((40, 400, 3), 90, np.uint8)
    save_with_legend(painted, np.ones((40, 400), int), ['wall', 'sky', 'sea'], PALETTE,
                     str(tmp_path / 'a.png'))
    page = np.asarray(Image.open(tmp_path / 'a.png'))
    np.testing.assert_array_equal(page[:40], painted)
    below = {tuple(colour) for colour in page[40:].reshape(-1, 3).tolist()}
    assert (0, 200, 0) in below and (200, 0, 0) not in below


@pytest.mark.parametrize('content', [None, b'', b'no image'])
def test_image_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / 'a.jpg'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f'image {path} cannot be decoded'):
        read_image(str(path))
