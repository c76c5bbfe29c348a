"""One picture of an image with its prediction, its ground truth beside, and a legend below.

Letters: `H W` pixels, `K` classes. In label maps 0..K-1 are classes and 255 is not labelled.
"""
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .overlay import FONT_SIZE, INK, PAPER, blend, classes_in, legend

_LEAST_SIDE = 256  # pixels, of the longer side that smaller images are enlarged to
_NARROWEST = 320  # pixels, least width of the picture
_READABLE = 1200  # pixels, width from which the writing grows with the picture


def side_by_side(image: np.ndarray, label_maps: Mapping[str, np.ndarray], classes: Sequence[str],
                 palette: np.ndarray, opacity: float) -> np.ndarray:
    """Paints label maps over an image, side by side, each below its title.

    Images are shown in their own size, and small ones enlarged by a whole number.

    Args:
        image: Image, RGB uint8 (H, W, 3).
        label_maps: Title -> labels (H, W).
        classes: Names of the K classes.
        palette: Colours, RGB (K, 3), 0..255.
        opacity: Opacity of the paint, 0..1.

    Returns:
        RGB uint8 (height, width, 3), with a legend of the classes shown.
    """
    times = max(1, -(-_LEAST_SIDE // max(image.shape[:2])))
    panels = [Image.fromarray(np.kron(blend(image, labels, palette, opacity),
                                      np.ones((times, times, 1), np.uint8)))
              for labels in label_maps.values()]
    across = sum(panel.width for panel in panels)
    size = round(FONT_SIZE * max(1, across / _READABLE))
    gap, title = size, 2 * size
    width = max(across + gap * (len(panels) - 1), _NARROWEST)
    key = legend(classes_in(label_maps.values()), classes, palette, width - 2 * gap, size)
    page = Image.new('RGB', (width, title + panels[0].height + key.height + 2 * gap), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    left = (width - across - gap * (len(panels) - 1)) // 2
    for name, panel in zip(label_maps, panels):
        pen.text((left + panel.width / 2, title / 2), name, INK, font, anchor='mm')
        page.paste(panel, (left, title))
        left += panel.width + gap
    page.paste(key, (gap, title + panels[0].height + gap))
    return np.asarray(page)
