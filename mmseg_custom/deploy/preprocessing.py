"""Image -> input of the network: resized, flipped, normalised and padded as in tests.

The same bits as the test pipeline of a recipe gives with mmcv and OpenCV: see :mod:`.resize`.

H W pixels of the image, h w pixels of the network's input.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .resize import covering_size, fitted_size, resize_bilinear

FIT, COVER, STRETCH = 'fit', 'cover', 'stretch'
FLIPS = ('horizontal', 'vertical')
# Of the network's input: as many pixels are 3 GiB in float32, before windows are cut.
MOST_SIDE, MOST_PIXELS = 1 << 16, 1 << 28


@dataclass(frozen=True)
class PreparedView:
    """One version of an image as the network takes it.

    Attributes:
        image: (3, h, w), float32.
        kept: Height and width of what of it is not padding, in pixels.
        flip: 'horizontal', 'vertical' or None.
    """
    image: Tensor
    kept: tuple[int, int]
    flip: str | None


@dataclass(frozen=True)
class Preprocessing:
    """How images become inputs of the network.

    Attributes:
        views: For each view, ``scale``: long and short side in pixels, and ``flip``: 'horizontal',
            'vertical' or None. Labels follow from the mean over several views.
        resize: 'fit' for the largest size within the scale, 'cover' for a short side of the scale's
            or ``least_short``, whichever is longer, or 'stretch' for the scale as width and height.
        mean: Means of the three channels that are subtracted, of values of 0..255.
        std: Standard deviations that they are divided by.
        least_short: Least length of the short side in pixels, of 'cover'.
        multiple: Number that divides the sides after the image is stretched a little; None leaves
            them.
        pad_multiple: Number that divides the sides after padding with 0; None pads nothing.
        pad_least: Least side after padding in pixels.
        channels: Order of the channels that the network takes, 'rgb' or 'bgr'.
    """
    views: Sequence[Mapping[str, Any]]
    resize: str
    mean: Sequence[float]
    std: Sequence[float]
    least_short: int | None = None
    multiple: int | None = None
    pad_multiple: int | None = None
    pad_least: int | None = None
    channels: str = 'rgb'

    def __call__(self, image: np.ndarray) -> list[PreparedView]:
        """Prepares all views of an image (H, W, 3), uint8, RGB.

        Raises:
            InputError: If the network's input would be too large, as of an image of one row.
        """
        return [self._prepare(image, view['scale'], view['flip']) for view in self.views]

    def _prepare(self, image: np.ndarray, scale: Sequence[int], flip: str | None) -> PreparedView:
        """Prepares one view: see :class:`Preprocessing`."""
        sizes = self._sizes(image.shape[0], image.shape[1], scale)
        for height, width in sizes:
            if not 0 < height * width <= MOST_PIXELS or max(height, width) > MOST_SIDE:
                raise InputError(
                    f'image of {image.shape[0]}x{image.shape[1]} pixels: the network would take it '
                    f'as {height}x{width}, expected sides of 1 to {MOST_SIDE} pixels and at most '
                    f'{MOST_PIXELS} pixels; cut it into parts')
        for height, width in sizes[:-1]:
            image = resize_bilinear(image, height, width)
        if flip is not None:
            image = np.flip(image, 1 - FLIPS.index(flip))
        if self.channels == 'bgr':
            image = image[..., ::-1]
        height, width = image.shape[:2]
        padded = torch.zeros(3, *sizes[-1])
        for channel, levels in enumerate(self._levels):
            padded[channel, :height, :width] = torch.from_numpy(levels[image[..., channel]])
        return PreparedView(padded, (height, width), flip)

    def _sizes(self, height: int, width: int, scale: Sequence[int]) -> list[tuple[int, int]]:
        """Returns the sizes that an image is resized to one after the other; padded, the last."""
        sizes = [self._size(height, width, scale)]
        if self.multiple:
            sizes.append(_rounded_up(sizes[-1], self.multiple))
        least = max(sizes[-1][0], self.pad_least or 0), max(sizes[-1][1], self.pad_least or 0)
        return [*sizes, _rounded_up(least, self.pad_multiple or 1)]

    def _size(self, height: int, width: int, scale: Sequence[int]) -> tuple[int, int]:
        """Returns the height and width that an image is resized to, before ``multiple``."""
        if self.resize == STRETCH:
            return scale[1], scale[0]
        if self.resize == FIT:
            return fitted_size(height, width, (scale[0], scale[1]))
        return covering_size(height, width, max(min(scale), self.least_short or 0))

    @cached_property
    def _levels(self) -> np.ndarray:
        """Normalised values (3, 256) of the 8-bit levels of each channel, in float32.

        mmcv subtracts in float32, and multiplies by the inverse in float64.
        """
        mean, std = (np.array(each, np.float32)[:, None] for each in (self.mean, self.std))
        centred = (np.arange(256, dtype=np.float32) - mean).astype(np.float64)
        return (centred * (1 / std.astype(np.float64))).astype(np.float32)


def _rounded_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Returns the least sides that are multiples of a number and not below those of ``size``."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple
