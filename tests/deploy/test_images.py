"""Decoding of images by Pillow, against what tests read by mmcv and OpenCV."""
import io

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmseg_custom.deploy.images import read_image
from mmseg_custom.errors import InputError

RNG = np.random.default_rng(0)
SMOOTH = cv2.resize(RNG.integers(0, 256, (7, 9, 3), np.uint8), (45, 37),
                    interpolation=cv2.INTER_CUBIC)
COLOUR = Image.fromarray(SMOOTH)
ALPHA = Image.fromarray(np.dstack([SMOOTH, SMOOTH[::-1, :, 0]]))
DEEP = SMOOTH.astype(np.uint16) * 256 + RNG.integers(0, 256, SMOOTH.shape).astype(np.uint16)
WEBP_TURNS = int(cv2.__version__.split('.')[0]) >= 5  # OpenCV 4 reads no orientation of WebP


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    return saved(COLOUR, kind, exif=exif)


FILES = {
    'jpeg': saved(COLOUR, 'JPEG', quality=80, subsampling=2),
    'jpeg 4:4:4': saved(COLOUR, 'JPEG', quality=95, subsampling=0),
    'progressive': saved(COLOUR, 'JPEG', progressive=True),
    'grey jpeg': saved(COLOUR.convert('L'), 'JPEG'),
    'cmyk jpeg': saved(COLOUR.convert('CMYK'), 'JPEG'),
    'png': saved(COLOUR, 'PNG'),
    'grey png': saved(COLOUR.convert('L'), 'PNG'),
    'black and white': saved(COLOUR.convert('1'), 'PNG'),
    'palette': saved(COLOUR.quantize(32), 'PNG'),
    'transparent palette': saved(COLOUR.quantize(32), 'PNG', transparency=bytes(range(32))),
    'alpha': saved(ALPHA, 'PNG'),
    'grey and alpha': saved(ALPHA.convert('LA'), 'PNG'),
    '16 bits of grey': cv2.imencode('.png', DEEP[..., 0])[1].tobytes(),
    '16 bits': cv2.imencode('.png', DEEP)[1].tobytes(),
    '16 bits of grey in TIFF': cv2.imencode('.tiff', DEEP[..., 0])[1].tobytes(),
    'tiff': saved(COLOUR, 'TIFF'),
    'tiff with alpha': saved(ALPHA, 'TIFF'),
    'bmp': saved(COLOUR, 'BMP'),
    'ppm': saved(COLOUR, 'PPM'),
    'webp': saved(COLOUR, 'WEBP', quality=80),
    **{f'jpeg turned {i}': oriented('JPEG', i) for i in range(1, 9)},
    'png turned': oriented('PNG', 6),
    'tiff turned': oriented('TIFF', 8),
    **({'webp turned': oriented('WEBP', 6)} if WEBP_TURNS else {}),
}


@pytest.mark.parametrize('kind', FILES)
def test_files_have_the_pixels_of_mmcv(kind, tmp_path):
    path = tmp_path / 'image'
    path.write_bytes(FILES[kind])
    expected = mmcv.imread(str(path), channel_order='rgb')
    assert np.array_equal(read_image(path), expected)
    with Image.open(path) as image:
        assert np.array_equal(read_image(image), expected)


def test_colours_of_16_bits_in_tiff_are_a_level_off_at_most(tmp_path):
    path = tmp_path / 'image.tiff'
    path.write_bytes(cv2.imencode('.tiff', DEEP)[1].tobytes())
    expected = mmcv.imread(str(path), channel_order='rgb').astype(int)
    assert abs(read_image(path) - expected).max() <= 1


def test_arrays():
    assert read_image(SMOOTH) is SMOOTH
    assert np.array_equal(read_image(SMOOTH[..., 0])[..., 2], SMOOTH[..., 0])


@pytest.mark.parametrize('image, message', [
    (SMOOTH.astype(np.float32), 'image of float32 and the shape (37, 45, 3): expected uint8'),
    (SMOOTH[..., :2], '(37, 45, 2)'),
    (SMOOTH[:0], '(0, 45, 3)'),
    (7, 'image of the type int: expected a path'),
    ('nowhere.jpg', 'image nowhere.jpg does not exist'),
    (Image.new('F', (3, 3)), 'floating point'),
    (Image.new('I', (3, 3), 70000), 'from 70000 to 70000'),
])
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(InputError) as error:
        read_image(image)
    assert message in str(error.value)


def test_images_beyond_pillows_limit_are_refused(tmp_path, monkeypatch):
    path = tmp_path / 'image.png'
    path.write_bytes(FILES['png'])
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 45 * 37 - 1)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(
            InputError, match='45x37 pixels: expected at most 1,664'):
        read_image(path)


@pytest.mark.parametrize('content', [b'', b'no image', FILES['jpeg'][:200], FILES['png'][:300]])
def test_damaged_files_are_refused_in_one_line(content, tmp_path):
    path = tmp_path / 'image.jpg'
    path.write_bytes(content)
    with pytest.raises(InputError, match='image.jpg cannot be read') as error:
        read_image(str(path))
    assert '\n' not in str(error.value)
