"""Files of labels: indexed PNGs, painted pictures, videos. Whole or not at all.

Letters: `H W` pixels, `K` classes. Label maps hold classes 0..K-1.
"""
import os
import os.path as osp
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import PART, atomic_path, flush
from .overlay import PAPER, classes_in, legend

_NARROWEST = 320  # pixels, of a picture with a legend
_MARGIN = 12  # pixels
_CODES = {'.mp4': 'mp4v', '.avi': 'MJPG'}


def save_labels(labels: np.ndarray, palette: np.ndarray, path: str, first: int = 0) -> None:
    """Writes a label map as a PNG whose values are the classes and whose palette paints them.

    Args:
        labels: Classes (H, W).
        palette: RGB (K, 3), 0..255.
        path: Of the .png.
        first: The value of class 0; below it is black. ADE20K has 1. With more than 256 values
            the file is 16-bit and has no palette.
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
        painted: RGB uint8 (H, W, 3).
        labels: Classes (H, W).
        classes: K names.
        palette: RGB (K, 3), 0..255.
        path: Of the .jpg or .png.
    """
    height, width = labels.shape
    page_width = max(width, _NARROWEST)
    key = legend(classes_in([labels]), classes, palette, page_width - 2 * _MARGIN)
    page = Image.new('RGB', (page_width, height + key.height + 2 * _MARGIN), PAPER)
    page.paste(Image.fromarray(painted), ((page_width - width) // 2, 0))
    page.paste(key, (_MARGIN, height + _MARGIN))
    with atomic_path(path) as part:
        page.save(part, 'PNG' if path.endswith('.png') else 'JPEG', quality=92)


class Video:
    """A video of frames of one size; a context manager, at whose end the file is there.

    Args:
        path: Ends in .mp4 (MPEG-4) or .avi (Motion JPEG, which any build of OpenCV writes).
        rate: Frames a second.

    Raises:
        InputError: For another ending, or where OpenCV cannot write the format.
    """

    def __init__(self, path: str, rate: float):
        self._ending = osp.splitext(path)[1].lower()
        if self._ending not in _CODES:
            raise InputError(f'--video {path}: expected a name that ends in '
                             f'{" or ".join(_CODES)}')
        if not rate > 0:
            raise InputError(f'--fps {rate}: expected a number above 0')
        self._path, self._rate = path, rate
        self._part = path + PART + self._ending  # OpenCV tells the format from the ending
        self._writer, self._size = None, None

    def add(self, frame: np.ndarray, name: str) -> None:
        """Appends a frame, RGB uint8 (H, W, 3); an odd last row or column is cut off."""
        size = frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2
        if self._writer is None:
            self._open(size)
        if size != self._size:
            raise InputError(f'{name} is {size[0]}x{size[1]} pixels, the frames before it '
                             f'{self._size[0]}x{self._size[1]}: expected one size in a video')
        self._writer.write(np.ascontiguousarray(frame[:size[1], :size[0], ::-1]))

    def __enter__(self) -> 'Video':
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None and self._writer is not None:
            flush(self._part)
            os.replace(self._part, self._path)
        elif osp.exists(self._part):
            os.remove(self._part)

    def _open(self, size: tuple[int, int]) -> None:
        os.makedirs(osp.dirname(osp.abspath(self._path)), exist_ok=True)
        code = cv2.VideoWriter_fourcc(*_CODES[self._ending])
        self._writer, self._size = cv2.VideoWriter(self._part, code, self._rate, size), size
        if not self._writer.isOpened():
            raise InputError(f'{self._path}: this build of OpenCV ({cv2.__version__}) cannot '
                             f'write {_CODES[self._ending]} at {size[0]}x{size[1]} pixels; '
                             'try a name that ends in .avi')
