"""Views of images: as they come to inference in windows, and while their windows are computed.

A views of an image in multi-scale testing, N images, K classes, H W pixels, h w cells of the head's
logits.
"""
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .windows import Axis, View


@dataclass(frozen=True)
class ImageView:
    """One view of an image, as the network gets it: resized, perhaps padded or flipped.

    Attributes:
        image: (3, H, W), normalised, on the device.
        label_size: Height and width of the label map in pixels, those of the original image.
        kept_size: Height and width of the part of ``image`` that is no padding, which begins at its
            first pixel; None for all of it.
        flip_direction: ``'horizontal'`` or ``'vertical'`` where ``image`` is reversed, else None.
        meta: What a decode head of mmseg is told of the image.
    """
    image: Tensor
    label_size: tuple[int, int]
    kept_size: tuple[int, int] | None = None
    flip_direction: str | None = None
    meta: dict | None = None


@dataclass
class WindowedView:
    """One view of one image: its windows, and the logits computed so far."""
    image: Tensor  # (3, H, W)
    meta: dict | None
    rows: Axis
    columns: Axis
    logits: Tensor | None = None  # (K, windows * h, windows * w)
    matrices: dict[tuple, Tensor] = field(default_factory=dict)  # may be shared with other heads

    @property
    def window_shape(self) -> tuple[int, int]:
        """Height and width of its windows in pixels."""
        return self.rows.side, self.columns.side

    def put(self, i: int, j: int, cells: Any) -> None:
        """Stores the logits (K, h, w) of the window in row i and column j."""
        classes, height, width = cells.shape
        if self.logits is None:
            self.logits = cells.new_empty(classes, len(self.rows.starts) * height,
                                          len(self.columns.starts) * width)
        self.logits[:, i * height:(i + 1) * height, j * width:(j + 1) * width] = cells

    def view(self, align_corners: bool) -> View:
        """Returns the logits with their weights for each pixel of the output."""
        assert self.logits is not None  # every window has been put
        cells = [size // len(axis.starts) for size, axis in
                 zip(self.logits.shape[1:], (self.rows, self.columns))]
        rows, columns = (self._matrix(axis, n, align_corners)
                         for axis, n in zip((self.rows, self.columns), cells))
        return View(self.logits, rows, columns, self.rows.pitch(cells[0]))

    def _matrix(self, axis: Axis, cells: int, align_corners: bool) -> Tensor:
        key = (axis, cells, align_corners)
        if key not in self.matrices:
            self.matrices[key] = axis.matrix(cells, align_corners)
        return self.matrices[key]


def views_of_batch(imgs: Sequence, img_metas: Sequence, rescale: bool = True
                   ) -> list[list[ImageView]]:
    """Returns the A views of each of N images that come as to mmseg's ``forward_test``.

    Args:
        imgs: A views, each (N, 3, H, W), or a list of N images (3, H, W) or (1, 3, H, W).
        img_metas: A lists of N dicts, as mmseg's ``Collect`` makes them.
        rescale: Whether label maps have the size of the original images; else they have that of the
            network's input, for a single view.
    """
    for value, name in ((imgs, 'imgs'), (img_metas, 'img_metas')):
        if not isinstance(value, list):
            raise TypeError(f'{name}: expected a list of views, got {type(value)}')
    if len(imgs) != len(img_metas):
        raise ValueError(f'{len(imgs)} views of images, but {len(img_metas)} of their metas')
    if len(imgs) > 1 and not rescale:
        raise ValueError('views of different sizes have their common size in rescale=True')
    views = [[_view(image, meta, rescale) for image, meta in zip(images, metas)]
             for images, metas in zip(imgs, img_metas)]
    return [list(of_image) for of_image in zip(*views)]


def _view(image: Tensor, meta: dict, rescale: bool) -> ImageView:
    image = image.reshape(image.shape[-3:])
    flip = meta['flip_direction'] if meta.get('flip') else None
    if rescale:
        return ImageView(image, meta['ori_shape'][:2], meta['img_shape'][:2], flip, meta)
    height, width = image.shape[1:]
    return ImageView(image, (height, width), None, flip, meta)
