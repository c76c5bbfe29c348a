"""Arrays that people pass as images: grey, with alpha, of 16 bits.

H W pixels.
"""
from functools import cache

import numpy as np
from mmseg.utils import get_root_logger

from ..errors import InputError


def as_colour(image: np.ndarray) -> np.ndarray:
    """Converts an image to what the pipelines take, as loading converts files.

    Args:
        image: (H, W) or (H, W, 1), grey; (H, W, 3); or (H, W, 4), whose alpha is dropped. Whole
            numbers of 0..255, of 0..65535 if it is uint16 (the upper 8 bits are kept), or floats
            of 0..255.

    Returns:
        (H, W, 3), uint8 or float, channels in the order of the image.

    Raises:
        InputError: If its shape or its numbers are another image's.
    """
    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
        raise InputError(f'image of the shape {image.shape}: expected (height, width), grey, or '
                         '(height, width, 3)')
    image = image.reshape(*image.shape[:2], channels)
    image = np.repeat(image, 3, -1) if channels == 1 else image[..., :3]
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    elif image.dtype.kind in 'iu':
        if image.min() < 0 or image.max() > 255:
            raise InputError(f'image of {image.dtype} from {image.min()} to {image.max()}: '
                             'expected 0 to 255')
        image = image.astype(np.uint8)
    elif image.dtype.kind != 'f' or not np.isfinite(image).all():
        raise InputError(f'image of {image.dtype}: expected uint8, or finite numbers from 0 to 255')
    elif 0 < image.max() <= 1:
        _warn_of_range()
    return np.ascontiguousarray(image)


@cache
def _warn_of_range() -> None:
    """Warns once, and not for each image of a video."""
    get_root_logger().warning('an image of floats has no value above 1: expected 0 to 255; '
                              'multiply it by 255')
