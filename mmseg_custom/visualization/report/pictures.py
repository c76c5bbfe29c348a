"""The pictures of an image: its photo, and its labels in colour, to be laid over it.

The browser mixes photo and labels, so that their opacity can be set there, and each picture is
stored once. Letters: `H W` pixels of the pictures, at most 512; `L` layers, `K` classes.
"""
import io
import os.path as osp
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...datasets.ground_truth import IGNORE_INDEX
from ...errors import InputError
from ...evaluation.results import Results
from ..files import read_image
from ..overlay import HATCH, hatched

_BETTER, _WRONG = (38, 132, 220), (228, 66, 36)
_MOST_COLOURS = 256  # of a PNG with a palette


@dataclass(frozen=True)
class Pictures:
    """The files of an image.

    Attributes:
        size: Width and height in pixels.
        photo: WebP file of the image; None if it cannot be read any more.
        layers: PNG file (L * H, W) of the layers, one below the other, transparent where the photo
            is to be seen: ground truth, predictions, and what is right or wrong.
    """
    size: tuple[int, int]
    photo: bytes | None
    layers: bytes

    @property
    def nbytes(self) -> int:
        """Bytes of both files."""
        return len(self.photo or b'') + len(self.layers)


def draw(runs: tuple[Results, ...], image: int) -> Pictures:
    """Draws the pictures of an image.

    Args:
        runs: One run, or two on the same images.
        image: Number of the image.

    Raises:
        InputError: If the label maps of a run cannot be decoded.
    """
    maps = [_label_maps(results, image) for results in runs]
    ground_truth = maps[0][0]
    predictions = [prediction for _, prediction in maps]
    ignored = ground_truth == IGNORE_INDEX
    right = [prediction == ground_truth for prediction in predictions]
    if len(runs) == 1:
        marks = [(~right[0] & ~ignored, _WRONG)]
    else:
        marks = [(right[1] & ~right[0], _BETTER), (right[0] & ~right[1], _WRONG)]
    # The colours: the classes, the two of the hatch, none, and those of the marks.
    count = len(runs[0].classes)
    colours = np.array([*([*colour, 255] for colour in runs[0].palette[:count]),
                        *([*colour, 255] for colour in HATCH), [0, 0, 0, 0],
                        *([*colour, 255] for _, colour in marks)], np.uint8)
    hatch = count + hatched(ground_truth.shape)
    painted = [np.where(labels == IGNORE_INDEX, hatch, labels)
               for labels in (ground_truth, *predictions)]
    marked = np.where(ignored, hatch, count + len(HATCH))
    for number, (mask, _) in enumerate(marks, count + len(HATCH) + 1):
        marked[mask] = number
    photo = _photo(runs[0], image, ground_truth.shape)
    return Pictures(ground_truth.shape[::-1], photo, _png(np.concatenate([*painted, marked]),
                                                          colours))


def _label_maps(results: Results, image: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ground truth and prediction (H, W), with 255 where there is no class."""
    try:
        ground_truth, prediction = results.images.label_maps(image)
    except InputError as error:
        raise InputError(f'{results.path}: {error}') from error
    count = len(results.classes)
    if count > IGNORE_INDEX:
        ground_truth, prediction = ground_truth.astype(np.int64), prediction.astype(np.int64)
    return (np.where(ground_truth < count, ground_truth, IGNORE_INDEX),
            np.where(prediction < count, prediction, IGNORE_INDEX))


def _photo(results: Results, image: int, shape: tuple[int, int]) -> bytes | None:
    """Encodes the image at the size of its label maps; None if it cannot be read any more."""
    path = osp.join(results.run['image_folder'], str(results.images.names[image]))
    try:
        picture = Image.fromarray(read_image(path))
    except InputError:
        return None
    small = picture.resize(shape[::-1], Image.Resampling.BICUBIC, reducing_gap=2)
    data = io.BytesIO()
    small.save(data, 'WEBP', quality=75, method=2)
    return data.getvalue()


def _png(indices: np.ndarray, colours: np.ndarray) -> bytes:
    """Encodes indices into colours, RGBA (C, 4); with a palette, unless there are too many."""
    present = np.flatnonzero(np.bincount(indices.ravel(), minlength=len(colours)))
    data = io.BytesIO()
    if len(present) > _MOST_COLOURS:
        Image.fromarray(colours[indices]).save(data, 'PNG')
        return data.getvalue()
    places = np.zeros(len(colours), np.uint8)
    places[present] = np.arange(len(present))
    picture = Image.fromarray(places[indices])
    picture.putpalette(colours[present, :3].tobytes())
    picture.save(data, 'PNG', transparency=colours[present, 3].tobytes())
    return data.getvalue()
