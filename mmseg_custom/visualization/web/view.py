"""A labelled image as the JSON that viewer.js reads.

Letters: `H W` pixels, `K` classes.
"""
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..files import data_url

_SIDE = 1600  # pixels, longest side shown; the label map to download is not scaled down


def view(image: np.ndarray, labels: np.ndarray, classes: Sequence[str],
         palette: np.ndarray) -> str:
    """Packs an image and its labels.

    Args:
        image: Image, RGB uint8 (H, W, 3).
        labels: Classes (H, W).
        classes: Names of the K classes.
        palette: Colours, RGB (K, 3), 0..255.

    Returns:
        Text of JSON with ``photo`` (data URL), ``width``, ``height``, ``runs`` (class, length,
        class, length, ... along the rows) and ``classes`` (number -> name, colour, share of the
        image).
    """
    photo = Image.fromarray(image)
    photo.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    rows, columns = (np.arange(shown) * side // shown for shown, side in zip(
        photo.size[::-1], labels.shape))
    small = labels[rows[:, None], columns]
    flat = small.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = np.diff(starts, append=flat.size)
    numbers, pixels = np.unique(labels, return_counts=True)
    return json.dumps(dict(
        photo=data_url(photo, 'JPEG', 90), width=photo.width, height=photo.height,
        runs=np.stack([flat[starts], lengths], 1).ravel().tolist(),
        classes={int(k): dict(name=classes[k], colour=[int(c) for c in palette[k]],
                              share=count / labels.size)
                 for k, count in zip(numbers, pixels)}))
