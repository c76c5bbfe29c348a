"""Labels in colour over an image, and the legend that explains the colours.

Letters: `H W` pixels, `K` classes. In label maps 0..K-1 are classes and 255 is not labelled.
"""
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..datasets.ground_truth import IGNORE_INDEX

HATCH = ((52, 52, 56), (84, 84, 88))  # background and lines where nothing is labelled
INK, PAPER = (32, 33, 36), (255, 255, 255)
FONT_SIZE = 15  # pixels, in the legend


def blend(image: np.ndarray, labels: np.ndarray, palette: np.ndarray,
          alpha: float = 0.7) -> np.ndarray:
    """Paints labels over an image; pixels that are not labelled become dark and hatched.

    Args:
        image: Image, RGB uint8 (H, W, 3).
        labels: Integers (H, W): 0..K-1 or 255.
        palette: Colours, RGB (K, 3), 0..255.
        alpha: Opacity of the paint, 0..1.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ValueError: If the shapes differ or a label is neither a class nor 255.
    """
    palette = np.asarray(palette, np.float64)
    if image.shape[:2] != labels.shape:
        raise ValueError(f'image {image.shape[:2]} and labels {labels.shape} differ in size')
    labelled = labels != IGNORE_INDEX
    if np.any((labels < 0) | (labels >= len(palette)) & labelled):
        raise ValueError(f'label {labels[labelled].max()}: expected 0..{len(palette) - 1} or '
                         f'{IGNORE_INDEX}')
    paint = palette[np.where(labelled, labels, 0)]
    lines = np.asarray(HATCH, np.float64)[hatched(labels.shape)]
    mixed = image + alpha * (paint - image)
    return np.where(labelled[..., None], mixed, lines).round().astype(np.uint8)


def hatched(shape: tuple[int, int]) -> np.ndarray:
    """Returns the pattern of what is not labelled (H, W): 0 is its ground, 1 its lines."""
    rows, columns = np.indices(shape)
    return ((rows + columns) % 8 < 2).astype(int)


def classes_in(label_maps: Iterable[np.ndarray]) -> list[int]:
    """Returns the labels that occur in any of the label maps (H, W), in order; 255 comes last."""
    return sorted({int(label) for labels in label_maps for label in np.unique(labels)})


def legend(present: Sequence[int], classes: Sequence[str], palette: np.ndarray,
           width: int, size: int = FONT_SIZE) -> Image.Image:
    """Draws the names and colours of classes, in as many columns as fit.

    Args:
        present: Labels to explain, 0..K-1 or 255.
        classes: Names of the K classes; those that are too long for the width are cut.
        palette: Colours, RGB (K, 3), 0..255.
        width: Width of the picture in pixels.
        size: Height of the font in pixels.

    Returns:
        RGB picture of that width, as high as needed.
    """
    font = ImageFont.load_default(size)
    line, margin = round(size * 1.7), size + size // 2  # the swatch, and the gap behind it
    names = [_fitting('not labelled' if label == IGNORE_INDEX else classes[label].strip(), font,
                      width - margin - 2) for label in present]
    longest = max((font.getlength(name) for name in names), default=0)
    column = int(longest) + size + round(size * 1.9)
    columns = max(1, min(width // column, len(names)))
    column = max(column, min(width // columns, round(column * 1.5)))
    picture = Image.new('RGB', (width, max(1, -(-len(names) // columns)) * line), PAPER)
    pen = ImageDraw.Draw(picture)
    for i, (label, name) in enumerate(zip(present, names)):
        x, y = i % columns * column, i // columns * line
        picture.paste(_swatch(label, palette, size), (x, y + (line - size) // 2))
        pen.text((x + margin, y + line / 2), name, INK, font, anchor='lm')
    return picture


def _fitting(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Returns a name, or as much of it as fits into a width, and dots."""
    if font.getlength(name) <= width:
        return name
    kept = next((count for count in range(len(name) - 1, 0, -1)
                 if font.getlength(f'{name[:count]}...') <= width), 0)
    return f'{name[:kept]}...'


def _swatch(label: int, palette: np.ndarray, side: int) -> Image.Image:
    """Makes a square in the colour that :func:`blend` gives the label on white."""
    square = np.full((side, side), label)
    return Image.fromarray(blend(np.full((side, side, 3), 255, np.uint8), square, palette, 1.))
