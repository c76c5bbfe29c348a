"""What the page shows of a labelled image, as the JSON that viewer.js reads.

Letters: `H W` pixels, `h w` of what is shown, `K` classes.
"""
import base64
import io
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE = 1600  # pixels, of what is shown; the label map to download has all of them


def view(image: np.ndarray, labels: np.ndarray, classes: Sequence[str],
         palette: np.ndarray) -> str:
    """Packs an image and its labels.

    Args:
        image: RGB uint8 (H, W, 3).
        labels: Classes (H, W).
        classes: K names.
        palette: RGB (K, 3), 0..255.

    Returns:
        JSON: ``photo`` (data URL), ``width``, ``height``, ``runs`` (class, length, class, length,
        ... along the rows) and ``classes`` (number -> name, colour, share of the image).
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
    data = io.BytesIO()
    photo.save(data, 'JPEG', quality=90)
    return json.dumps(dict(
        photo='data:image/jpeg;base64,' + base64.b64encode(data.getvalue()).decode(),
        width=photo.width, height=photo.height,
        runs=np.stack([flat[starts], lengths], 1).ravel().tolist(),
        classes={int(k): dict(name=classes[k], colour=[int(c) for c in palette[k]],
                              share=count / labels.size)
                 for k, count in zip(numbers, pixels)}))
