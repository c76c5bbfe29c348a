"""Files of labels are whole, hold the numbers that they say, and are refused in one line."""
import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_custom.errors import InputError
from mmseg_custom.visualization.files import Video, save_labels, save_with_legend

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


@pytest.mark.parametrize('ending', ['mp4', 'avi'])
def test_video_has_the_frames(tmp_path, ending):
    path = tmp_path / 'new' / f'a.{ending}'
    with Video(str(path), 12) as video:
        for shade in (20, 120, 220):
            video.add(np.full((49, 65, 3), (shade, 0, 0), np.uint8), 'frame')
    reader, shades = cv2.VideoCapture(str(path)), []
    while (frame := reader.read()[1]) is not None:
        assert frame.shape == (48, 64, 3)
        shades.append(frame[..., 2].mean())
    assert np.allclose(shades, [20, 120, 220], atol=12) and reader.get(cv2.CAP_PROP_FPS) == 12
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_video_of_two_sizes_is_refused_and_leaves_nothing(tmp_path):
    path = tmp_path / 'a.avi'
    with pytest.raises(InputError, match='f2.png is 32x48 pixels, the frames before it 64x48'):
        with Video(str(path), 10) as video:
            video.add(np.zeros((48, 64, 3), np.uint8), 'f1.png')
            video.add(np.zeros((48, 32, 3), np.uint8), 'f2.png')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name, rate, message', [
    ('a.gif', 10, 'ends in .mp4 or .avi'), ('a.mp4', 0, '--fps 0'), ('a', 5, 'ends in')])
def test_video_of_another_form_is_refused(name, rate, message):
    with pytest.raises(InputError, match=message):
        Video(name, rate)
