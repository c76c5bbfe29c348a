"""The images: photo, ground truth, prediction and difference, with their legends.

Letters: `H W` pixels of the pictures, at most 512; `N` images, `K` classes.
"""
import os.path as osp
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...datasets.ground_truth import IGNORE_INDEX
from ...errors import InputError
from ...evaluation.results import Results
from ..files import read_image
from ..overlay import blend, classes_in
from .numbers import percent, points

_ALPHA = 0.75
_BETTER, _WRONG = (38, 132, 220), (228, 66, 36)
_WORST_CONFUSIONS = 3
_SMALL = 0.005  # share of a picture below which a class is not in its legend


@dataclass(frozen=True)
class Card:
    """An image of the page, with the texts on it."""
    name: str
    note: str
    pictures: dict[str, Image.Image | None]  # by title; None if the image's file is missing
    classes: list[tuple[str, np.ndarray]]  # name and colour of those in the legend
    small_classes: str
    confusions: str = ''


@dataclass(frozen=True)
class Gallery:
    """A section of images."""
    title: str
    note: str
    cards: list[Card]


def worst_and_best(results: Results, count: int) -> list[Gallery]:
    """Shows the images with the lowest and with the highest mean IoU."""
    scores = results.image_scores
    order = _ascending(scores)
    worst = order[:count]
    best = [image for image in order[::-1][:count] if image not in worst]
    return _galleries(
        (f'{title} images', f'Mean IoU over the classes of the ground truth, {which} first. '
         'Difference: wrong pixels in red over the grey photo; what is not labelled is hatched.',
         [_card(results, image, scores[image]) for image in chosen])
        for title, which, chosen in (('Worst', 'lowest', worst), ('Best', 'highest', best)))


def changed(a: Results, b: Results, count: int) -> list[Gallery]:
    """Shows the images whose mean IoU fell and rose most from A to B."""
    change = b.image_scores - a.image_scores
    order = _ascending(change)
    lost = [image for image in order if change[image] < 0][:count]
    gained = [image for image in order[::-1] if change[image] > 0][:count]
    return _galleries(
        (f'Images that {title} most from A to B', 'Change: pixels that B alone has right in blue, '
         'that A alone has right in red.', [_card_of_two(a, b, image) for image in chosen])
        for title, chosen in (('lost', lost), ('gained', gained)))


def _ascending(scores: np.ndarray) -> list[int]:
    return [int(i) for i in np.argsort(scores, kind='stable') if np.isfinite(scores[i])]


def _galleries(sections: Iterable[tuple[str, str, list[Card]]]) -> list[Gallery]:
    return [Gallery(*section) for section in sections if section[-1]]


def _card(results: Results, image: int, score: float) -> Card:
    ground_truth, prediction = _label_maps(results, image)
    photo = _photo(results, image, ground_truth.shape)
    wrong = (ground_truth != prediction) & (ground_truth != IGNORE_INDEX)
    pictures = {'Image': photo, 'Ground truth': _paint(results, photo, ground_truth),
                'Prediction': _paint(results, photo, prediction),
                'Difference': _mark(photo, ground_truth, [(wrong, _WRONG)])}
    note = f'mean IoU {percent(score)}, {_accuracy(results, image)} of its pixels right'
    return Card(str(results.images.names[image]), note, pictures,
                *_legend(results, [ground_truth, prediction]), _confusions(results, image))


def _card_of_two(a: Results, b: Results, image: int) -> Card:
    ground_truth, of_a = _label_maps(a, image)
    _, of_b = _label_maps(b, image)
    photo = _photo(a, image, ground_truth.shape)
    known = ground_truth != IGNORE_INDEX
    a_right, b_right = ((labels == ground_truth) & known for labels in (of_a, of_b))
    marks = [(b_right & ~a_right, _BETTER), (a_right & ~b_right, _WRONG)]
    pictures = {'Image': photo, 'Ground truth': _paint(a, photo, ground_truth),
                'A': _paint(a, photo, of_a), 'B': _paint(a, photo, of_b),
                'Change': _mark(photo, ground_truth, marks)}
    before, after = a.image_scores[image], b.image_scores[image]
    note = f'mean IoU {percent(before)} to {percent(after)} ({points(after - before, 1)})'
    return Card(str(a.images.names[image]), note, pictures,
                *_legend(a, [ground_truth, of_a, of_b]))


def _legend(results: Results,
            label_maps: list[np.ndarray]) -> tuple[list[tuple[str, np.ndarray]], str]:
    """Lists the classes that cover enough of a label map, largest first, and counts the others."""
    shares = {k: max(float((labels == k).mean()) for labels in label_maps)
              for k in classes_in(label_maps) if k != IGNORE_INDEX}
    large = [k for k in sorted(shares, key=lambda k: -shares[k]) if shares[k] >= _SMALL]
    small = len(shares) - len(large)
    return ([(results.classes[k], results.palette[k]) for k in large],
            f'{small} more under {_SMALL:.1%}' if small else '')


def _confusions(results: Results, image: int) -> str:
    """Names the confusions of most of the wrong pixels."""
    ground_truth, prediction, pixels = results.images.entries(image)
    wrong = np.flatnonzero((ground_truth != prediction) & (ground_truth < len(results.classes)))
    most = sorted(wrong, key=lambda e: -pixels[e])[:_WORST_CONFUSIONS]
    return ' · '.join(
        f'{results.classes[ground_truth[e]]} → {results.classes[prediction[e]]} '
        f'{percent(pixels[e] / pixels.sum())} %' for e in most)


def _accuracy(results: Results, image: int) -> str:
    ground_truth, prediction, pixels = results.images.entries(image)
    return percent(pixels[ground_truth == prediction].sum() / max(1, pixels.sum())) + ' %'


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


def _photo(results: Results, image: int, shape: tuple[int, int]) -> Image.Image | None:
    """Reads the image at the size of its label maps; None if its file cannot be read any more."""
    path = osp.join(results.run['image_folder'], str(results.images.names[image]))
    try:
        picture = Image.fromarray(read_image(path))
    except InputError:
        return None
    return picture.resize(shape[::-1], Image.Resampling.LANCZOS)


def _background(photo: Image.Image | None, shape: tuple[int, int]) -> np.ndarray:
    return np.full((*shape, 3), 160, np.uint8) if photo is None else np.asarray(photo)


def _paint(results: Results, photo: Image.Image | None, labels: np.ndarray) -> Image.Image:
    return Image.fromarray(
        blend(_background(photo, labels.shape), labels, results.palette, _ALPHA))


def _mark(photo: Image.Image | None, ground_truth: np.ndarray, marks: list) -> Image.Image:
    """Paints masks in colours over the pale grey photo, hatched where nothing is labelled."""
    pale = _background(photo, ground_truth.shape).mean(2, keepdims=True).repeat(3, 2) * 0.6 + 90
    labels = np.where(ground_truth == IGNORE_INDEX, IGNORE_INDEX, 0)
    colours = np.zeros((len(marks) + 1, 3))
    for i, (mask, colour) in enumerate(marks, 1):
        labels[mask], colours[i] = i, colour
    painted = blend(pale.astype(np.uint8), labels, colours, 0.75)
    return Image.fromarray(np.where((labels == 0)[..., None], pale, painted).astype(np.uint8))
