"""The images: photo, truth, prediction and difference, with the words that explain them.

Letters: `H W` pixels of the pictures, at most 512; `N` images, `K` classes.
"""
import base64
import io
import os.path as osp

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...evaluation.confusion import image_scores
from ...evaluation.results import Results
from ..overlay import NOT_LABELLED, blend, classes_in
from .text import escape, percent, points, swatch

_ALPHA = 0.75
_WRONG, _MENDED, _SPOILED = (228, 66, 36), (38, 132, 220), (228, 66, 36)
_WORST_CONFUSIONS = 3
_SMALL = 0.005  # share of a picture below which a class is not in its legend


def worst_and_best(results: Results, count: int) -> str:
    """The images with the lowest and with the highest mean IoU."""
    scores = _scores(results)
    order = [int(i) for i in np.argsort(scores, kind='stable') if np.isfinite(scores[i])]
    worst = order[:count]
    best = [i for i in reversed(order[-count:]) if i not in worst]
    return ''.join(
        _section(f'{title} images', f'Mean IoU over the classes of the truth, {which} first. '
                 'Difference: wrong pixels in red over the grey photo; what is not labelled is '
                 'hatched.', [_card(results, i, scores[i]) for i in chosen])
        for title, which, chosen in (('Worst', 'lowest', worst), ('Best', 'highest', best))
        if chosen)


def changed(a: Results, b: Results, count: int) -> str:
    """The images whose mean IoU fell and rose most from A to B."""
    before, after = _scores(a), _scores(b)
    change = after - before
    order = [int(i) for i in np.argsort(change, kind='stable') if np.isfinite(change[i])]
    lost = [i for i in order if change[i] < 0][:count]
    gained = [i for i in reversed(order) if change[i] > 0][:count]
    return ''.join(
        _section(f'Images that {title} most from A to B', 'Change: pixels that B alone has right '
                 'in blue, that A alone has right in red.',
                 [_card_of_two(a, b, i, before[i], after[i]) for i in chosen])
        for title, chosen in (('lost', lost), ('gained', gained)) if chosen)


def _scores(results: Results) -> np.ndarray:
    return image_scores(*results.areas, results.images.truth_areas(len(results.classes)))


def _section(title: str, note: str, cards: list[str]) -> str:
    return (f'<section><h2>{title}</h2><p class="note">{note}</p>\n' + '\n'.join(cards)
            + '</section>')


def _card(results: Results, image: int, score: float) -> str:
    truth, prediction = _maps(results, image)
    photo = _photo(results, image, truth.shape)
    wrong = (truth != prediction) & (truth != NOT_LABELLED)
    pictures = [('Image', photo), ('Truth', _paint(results, photo, truth)),
                ('Prediction', _paint(results, photo, prediction)),
                ('Difference', _mark(photo, truth, [(wrong, _WRONG)]))]
    note = f'mean IoU {percent(score)}, {_accuracy(results, image)} of its pixels right'
    return _article(results, image, note, pictures, _confusions(results, image),
                    [truth, prediction])


def _card_of_two(a: Results, b: Results, image: int, before: float, after: float) -> str:
    truth, of_a = _maps(a, image)
    _, of_b = _maps(b, image)
    photo = _photo(a, image, truth.shape)
    known = truth != NOT_LABELLED
    right = [(labels == truth) & known for labels in (of_a, of_b)]
    marks = [(right[1] & ~right[0], _MENDED), (right[0] & ~right[1], _SPOILED)]
    pictures = [('Image', photo), ('Truth', _paint(a, photo, truth)),
                ('A', _paint(a, photo, of_a)), ('B', _paint(a, photo, of_b)),
                ('Change', _mark(photo, truth, marks))]
    note = f'mean IoU {percent(before)} to {percent(after)} ({points(after - before, 1)})'
    return _article(a, image, note, pictures, '', [truth, of_a, of_b])


def _article(results: Results, image: int, note: str, pictures: list, words: str,
             maps: list[np.ndarray]) -> str:
    name = escape(str(results.images.names[image]))
    figures = ''.join(
        f'<figure><img alt="{title} of {name}" src="{_data_url(picture)}" '
        f'width="{picture.shape[1]}" height="{picture.shape[0]}"><figcaption>{title}</figcaption>'
        '</figure>' if picture is not None else
        f'<figure><p class="missing">The file of the image is not in '
        f'{escape(results.run["image_folder"])}</p><figcaption>{title}</figcaption></figure>'
        for title, picture in pictures)
    chips, small = _legend(maps)
    chips = ''.join(f'<li>{swatch(results.palette[k])}{escape(results.classes[k])}</li>'
                    for k in chips) + (f'<li class="note">{small} more under {_SMALL:.1%}</li>'
                                       if small else '')
    return (f'<article class="card"><h3>{name} <span class="note">{note}</span></h3>'
            f'<div class="row n{len(pictures)}">{figures}</div>{words}'
            f'<ul class="chips" aria-label="Classes">{chips}</ul></article>')


def _legend(maps: list[np.ndarray]) -> tuple[list[int], int]:
    """The classes that cover enough of one of the maps, largest first; how many do not."""
    shares = {k: max(float((labels == k).mean()) for labels in maps)
              for k in classes_in(maps) if k != NOT_LABELLED}
    large = [k for k in sorted(shares, key=lambda k: -shares[k]) if shares[k] >= _SMALL]
    return large, len(shares) - len(large)


def _confusions(results: Results, image: int) -> str:
    """What most of the wrong pixels are, in words."""
    truth, prediction, pixels = results.images.entries(image)
    wrong = np.flatnonzero((truth != prediction) & (truth < len(results.classes)))
    most = sorted(wrong, key=lambda e: -pixels[e])[:_WORST_CONFUSIONS]
    words = [f'{escape(results.classes[truth[e]])} → {escape(results.classes[prediction[e]])} '
             f'{percent(pixels[e] / pixels.sum())} %' for e in most]
    return f'<p class="words">{" · ".join(words)}</p>' if words else ''


def _accuracy(results: Results, image: int) -> str:
    truth, prediction, pixels = results.images.entries(image)
    return percent(pixels[truth == prediction].sum() / max(1, pixels.sum())) + ' %'


def _maps(results: Results, image: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction (H, W), with 255 for what is not labelled or no class."""
    truth, prediction = results.images.label_maps(image)
    count = len(results.classes)
    if count > NOT_LABELLED:
        truth, prediction = truth.astype(np.int64), prediction.astype(np.int64)
    return np.where(truth < count, truth, NOT_LABELLED), prediction


def _photo(results: Results, image: int, shape: tuple[int, int]) -> np.ndarray | None:
    """The image at the size of its label maps, RGB; None where its file is not there any more."""
    path = osp.join(results.run['image_folder'], str(results.images.names[image]))
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert('RGB')
    except (OSError, UnidentifiedImageError):
        return None
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.LANCZOS))


def _ground(photo: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    return np.full((*shape, 3), 160, np.uint8) if photo is None else photo


def _paint(results: Results, photo: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    return blend(_ground(photo, labels.shape), labels, results.palette, _ALPHA)


def _mark(photo: np.ndarray | None, truth: np.ndarray, marks: list) -> np.ndarray:
    """Masks in colours over the pale grey photo; hatched where there is no truth."""
    ground = _ground(photo, truth.shape).mean(2, keepdims=True).repeat(3, 2) * 0.6 + 90
    labels = np.where(truth == NOT_LABELLED, NOT_LABELLED, 0)
    colours = np.zeros((len(marks) + 1, 3))
    for i, (mask, colour) in enumerate(marks, 1):
        labels[mask], colours[i] = i, colour
    painted = blend(ground.astype(np.uint8), labels, colours, 0.75)
    return np.where((labels == 0)[..., None], ground, painted).astype(np.uint8)


def _data_url(picture: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, 'WEBP', quality=78)
    return 'data:image/webp;base64,' + base64.b64encode(data.getvalue()).decode()
