"""Files of images and labels: photos, indexed PNGs, painted pictures, data URLs.

Letters: `H W` pixels, `K` classes. Label maps hold classes 0..K-1.
"""
import base64
import io
from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import atomic_path
from .overlay import PAPER, classes_in, legend

_NARROWEST = 320  # pixels, least width of a picture with a legend
_MARGIN = 12  # pixels


def read_image(path: str) -> np.ndarray:
    """Reads an image as the pipelines do: RGB uint8 (H, W, 3), upright.

    Raises:
        InputError: If it is missing or cannot be decoded.
    """
    try:
        image = mmcv.imread(path, channel_order='rgb')
    except (cv2.error, OSError):
        image = None
    if image is None:
        raise InputError(f'image {path} cannot be decoded: expected a JPEG, PNG or other picture '
                         'file; replace or remove it')
    return image


def data_url(picture: Image.Image, kind: str, quality: int) -> str:
    """Encodes a picture as a data URL of a kind of Pillow's, such as 'JPEG' or 'WEBP'."""
    data = io.BytesIO()
    picture.save(data, kind, quality=quality)
    return f'data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}'


def save_labels(labels: np.ndarray, palette: np.ndarray, path: str, first: int = 0) -> None:
    """Writes a label map as a PNG whose values are the classes and whose palette colours them.

    Args:
        labels: Classes (H, W).
        palette: Colours, RGB (K, 3), 0..255.
        path: Path of the .png.
        first: Value of class 0, below which values are black; 1 for ADE20K. With more than 256
            values the file is 16-bit and has no palette.
    """
    values = labels + first
    if len(palette) + first > 256:
        picture = Image.fromarray(values.astype(np.uint16))
    else:
        picture = Image.fromarray(values.astype(np.uint8))
        picture.putpalette([0] * (3 * first) + np.asarray(palette, np.uint8).ravel().tolist())
    with atomic_path(path) as part:
        picture.save(part, 'PNG', optimize=True)


def save_with_legend(painted: np.ndarray, labels: np.ndarray, classes: Sequence[str],
                     palette: np.ndarray, path: str) -> None:
    """Writes a painted image above a legend of the classes in it, as JPEG or PNG.

    Args:
        painted: Image, RGB uint8 (H, W, 3).
        labels: Classes (H, W).
        classes: Names of the K classes.
        palette: Colours, RGB (K, 3), 0..255.
        path: Path of the .jpg or .png.
    """
    height, width = labels.shape
    page_width = max(width, _NARROWEST)
    key = legend(classes_in([labels]), classes, palette, page_width - 2 * _MARGIN)
    page = Image.new('RGB', (page_width, height + key.height + 2 * _MARGIN), PAPER)
    page.paste(Image.fromarray(painted), ((page_width - width) // 2, 0))
    page.paste(key, (_MARGIN, height + _MARGIN))
    with atomic_path(path) as part:
        page.save(part, 'PNG' if path.endswith('.png') else 'JPEG', quality=92)
