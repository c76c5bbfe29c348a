"""Image file, Pillow's image or array -> the pixels that a segmentor was tested on.

Tests read images with OpenCV, this with Pillow. Both turn an image upright by its EXIF orientation,
repeat grey and look up palettes. Where they differ, OpenCV's pixels are computed here: 16 bits of
grey, CMYK of a JPEG, and the alpha of a TIFF. Pillow alone reads GIF with every version of OpenCV,
and rounds colours of 16 bits in TIFF and PPM otherwise than OpenCV does, by one level of 255.

H W pixels.
"""
import os
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, words_of
from ..missing import look_around

ImageSource: TypeAlias = str | os.PathLike | Image.Image | np.ndarray


def read_image(source: ImageSource) -> np.ndarray:
    """Returns the pixels of an image.

    Args:
        source: Path of a file, an image of Pillow, or an array of uint8: (H, W, 3) in RGB, or
            (H, W), grey.

    Returns:
        (H, W, 3), uint8, RGB.

    Raises:
        InputError: If it is none of these, or cannot be decoded.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, 'image')
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f'image of the type {type(source).__name__}: expected a path, an image of '
                         'Pillow, or an array of uint8 (height, width, 3) in RGB')
    path = os.fspath(source)
    if not os.path.exists(path):
        raise InputError(f'image {path} does not exist{look_around(path)}')
    try:
        with Image.open(path) as image:
            _check_size(image, f'image {path}')
            return _decode(image, f'image {path}')
    except (UnidentifiedImageError, Image.DecompressionBombError,
            Image.DecompressionBombWarning, OSError) as error:
        raise _unreadable(f'image {path}', error) from error


def _check_size(image: Image.Image, name: str) -> None:
    """Refuses an image from Pillow's limit on, where Pillow itself does so from its double on.

    Making its warning an error would change the filters of all threads.
    """
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise InputError(f'{name} has {image.width}x{image.height} pixels: expected at most '
                         f'{most:,} in all; set PIL.Image.MAX_IMAGE_PIXELS to allow more')


def _check_array(image: np.ndarray) -> np.ndarray:
    """Returns an array of pixels with three channels."""
    if image.dtype != np.uint8 or not image.size or not (
            image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3):
        raise InputError(f'image of {image.dtype} and the shape {image.shape}: expected uint8 of '
                         'the shape (height, width, 3), RGB, or (height, width), grey')
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _decode(image: Image.Image, name: str) -> np.ndarray:
    """Decodes an image of Pillow; see :func:`read_image`."""
    if not all(image.size):
        raise InputError(f'{name} has {image.width}x{image.height} pixels: expected some')
    try:
        kind = image.format  # which a transposed image has no longer
        # Pillow would also remove the orientation from the image's data, by a copy of all of it.
        upright = ImageOps.exif_transpose(image)
        return _as_rgb(upright, kind, name)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(name, error) from error


def _as_rgb(image: Image.Image, kind: str | None, name: str) -> np.ndarray:
    """Returns the pixels (H, W, 3) of an upright image.

    Args:
        image: Image.
        kind: Format of its file, in Pillow's words.
        name: What it is called in messages.
    """
    if image.mode.startswith('I'):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise InputError(f'{name} has grey values from {grey.min()} to {grey.max()}: expected '
                             '8 or 16 bits')
        return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == 'F':
        raise InputError(f'{name} has values in floating point: expected 8 or 16 bits')
    if image.mode == 'CMYK' and kind == 'JPEG':
        ink = np.asarray(image).astype(np.int32)
        paper = 255 - ink[..., 3:]
        return (paper - (ink[..., :3] * paper >> 8)).astype(np.uint8)
    if image.mode == 'RGBA' and kind == 'TIFF':
        colours = np.asarray(image).astype(np.int32)
        return ((colours[..., :3] * colours[..., 3:] + 127) // 255).astype(np.uint8)
    return np.asarray(image.convert('RGB'))


def _unreadable(name: str, error: Any) -> InputError:
    return InputError(f'{name} cannot be read ({words_of(error)}): expected an image that Pillow '
                      'decodes, e.g. JPEG or PNG')
