"""A grid of pictures: each row an image, its truth and a prediction; a legend below.

Letters: `H W` pixels, `K` classes, `R` rows. In label maps 0..K-1 are classes and 255 is not
labelled.
"""
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .overlay import INK, PAPER, blend, classes_in, legend

Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # image (H, W, 3), truth (H, W), prediction (H, W)

TITLES = ('Image', 'Truth', 'Prediction')
CELL = (300, 216)  # the box that each picture is fitted into, pixels
GAP, MARGIN = 10, 24  # pixels


def picture_grid(rows: Sequence[Row], classes: Sequence[str],
                 palette: np.ndarray) -> Image.Image:
    """Draw the grid.

    Args:
        rows: R times image (H, W, 3) RGB uint8, truth (H, W) and prediction (H, W); H and W may
            differ between rows.
        classes: K names.
        palette: RGB (K, 3), 0..255.

    Returns:
        RGB picture. Its legend has exactly the classes that the truths and predictions show.

    Raises:
        ValueError: If there is no row, or the arrays of a row differ in size.
    """
    if not rows:
        raise ValueError('a picture grid needs at least one row')
    cells = [_cells(*row, palette) for row in rows]
    column = max(cell.width for line in cells for cell in line)
    width = 2 * MARGIN + 3 * column + 2 * GAP
    present = classes_in(labels for row in rows for labels in row[1:])
    key = legend(present, classes, palette, width - 2 * MARGIN)
    title = 40
    heights = [line[0].height for line in cells]
    height = MARGIN // 2 + title + sum(heights) + GAP * len(heights) + GAP + key.height + MARGIN
    page = Image.new('RGB', (width, height), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(18)
    lefts = [MARGIN + i * (column + GAP) for i in range(3)]
    for left, name in zip(lefts, TITLES):
        pen.text((left + column / 2, MARGIN // 2 + title / 2), name, INK, font, anchor='mm')
    y = MARGIN // 2 + title
    for line in cells:
        for left, cell in zip(lefts, line):
            page.paste(cell, (left + (column - cell.width) // 2, y))
        y += line[0].height + GAP
    page.paste(key, (MARGIN, y + GAP))
    return page


def save_png(picture: Image.Image, path: str, max_bytes: int = 400_000) -> None:
    """Write a picture whole, as fine as the size allows.

    Args:
        picture: RGB.
        path: Of the file; its folder is made.
        max_bytes: The file stays below it: at first by coarser tones, then by fewer pixels.
    """
    data = _encode(picture)
    for bits in (6, 5):
        if len(data) >= max_bytes:
            data = _encode(_coarsen(picture, bits))
    while len(data) >= max_bytes:
        picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5),
                                 Image.Resampling.LANCZOS)
        data = _encode(_coarsen(picture, 5))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + '.part')
    with open(part, 'wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, target)


def _cells(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray,
           palette: np.ndarray) -> list[Image.Image]:
    """The three pictures of a row, in one size that fits the cell."""
    if image.shape[:2] != truth.shape or prediction.shape != truth.shape:
        raise ValueError(f'image {image.shape[:2]}, truth {truth.shape} and prediction '
                         f'{prediction.shape} differ in size')
    height, width = truth.shape
    scale = min(CELL[0] / width, CELL[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    photo = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    painted = [blend(np.asarray(photo), _resize_labels(labels, size), palette)
               for labels in (truth, prediction)]
    return [photo, *map(Image.fromarray, painted)]


def _resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(labels.astype(np.uint8))
    return np.asarray(picture.resize(size, Image.Resampling.NEAREST))


def _encode(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, format='PNG', optimize=True)
    return data.getvalue()


def _coarsen(picture: Image.Image, bits: int) -> Image.Image:
    """Round each channel to `2**bits` tones, black and white among them: PNG packs noise badly."""
    top = 2**bits - 1
    return picture.point([round(round(value / 255 * top) / top * 255) for value in range(256)] * 3)
