"""A grid of pictures: each row an image, its ground truth and a prediction; a legend below.

Letters: `H W` pixels, `K` classes, `R` rows. In label maps 0..K-1 are classes and 255 is not
labelled.
"""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import atomic_path
from .overlay import INK, PAPER, blend, classes_in, legend

Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # image (H, W, 3), ground truth, prediction (H, W)

TITLES = ('Image', 'Ground truth', 'Prediction')
CELL = (300, 216)  # the box that each picture is fitted into, pixels
GAP, MARGIN = 10, 24  # pixels


def picture_grid(rows: Sequence[Row], classes: Sequence[str],
                 palette: np.ndarray) -> Image.Image:
    """Draws the grid.

    Args:
        rows: R times image (H, W, 3) RGB uint8, ground truth (H, W) and prediction (H, W); H and W
            may differ between rows.
        classes: Names of the K classes.
        palette: Colours, RGB (K, 3), 0..255.

    Returns:
        RGB picture, whose legend has exactly the classes shown.

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


def save_png(picture: Image.Image, path: str) -> None:
    """Writes a picture atomically; makes its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        picture.save(part, 'PNG', optimize=True)


def _cells(image: np.ndarray, ground_truth: np.ndarray, prediction: np.ndarray,
           palette: np.ndarray) -> list[Image.Image]:
    """Makes the three pictures of a row, in one size that fits the cell."""
    if image.shape[:2] != ground_truth.shape or prediction.shape != ground_truth.shape:
        raise ValueError(f'image {image.shape[:2]}, ground truth {ground_truth.shape} and '
                         f'prediction {prediction.shape} differ in size')
    size = fitted(ground_truth.shape)
    photo = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    painted = [blend(np.asarray(photo), resize_labels(labels, size), palette)
               for labels in (ground_truth, prediction)]
    return [photo, *map(Image.fromarray, painted)]


def fitted(shape: tuple[int, int]) -> tuple[int, int]:
    """Returns the width and height that a picture (H, W) gets in a cell, in pixels."""
    height, width = shape
    scale = min(CELL[0] / width, CELL[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes labels (H, W) to a width and height by their nearest neighbours; uint8."""
    picture = Image.fromarray(labels.astype(np.uint8))
    return np.asarray(picture.resize(size, Image.Resampling.NEAREST))
