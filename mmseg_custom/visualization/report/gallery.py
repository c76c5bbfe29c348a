"""The images of the page: which ones, and where their pictures are.

The pictures of the first images are in the page itself; those of the others lie in a folder beside
it, from which the browser loads them when they are to be seen.

    eval_single_scale_20261124_190000.html
    eval_single_scale_20261124_190000_images/
      12.webp  12.png      photo and layers of image 12, see :mod:`.pictures`
"""
import base64
import os
import os.path as osp
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import quote

import numpy as np

from ...errors import InputError
from ...evaluation.results import Results
from ...files import atomic_folder, flush
from ...units import format_bytes
from .cards import Card, describe
from .numbers import count_of, number
from .pictures import Pictures, draw

_EMBEDDED = 24  # images whose pictures are in the page itself
_MOST_THREADS = 8
_OWN_FILE = re.compile(r'\d+\.(webp|png)')

T = TypeVar('T')
Progress = Callable[[Iterable[T], int], Iterable[T]]  # shows how many of a number are done


@dataclass(frozen=True)
class Gallery:
    """The images of the page.

    Attributes:
        titles: Title of the photo and of each layer.
        note: What the pictures show.
        chosen: Which of the images are shown, and where the pictures are.
        missing: What is said of photos that cannot be read any more.
        folder: Name of the folder of pictures; empty if there is none.
        orders: Names of the ascending and of the descending order of the scores.
        score: Name of the score.
        bounds: Lowest and highest score, percent.
        first: Number of cards that are visible at first.
        embedded: Number of cards whose pictures are in the page.
        classes: Classes that the cards show or take for others.
        cards: The images, lowest score first.
    """
    titles: Sequence[str]
    note: str
    chosen: str
    missing: str
    folder: str
    orders: tuple[str, str]
    score: str
    bounds: tuple[int, int]
    first: int
    embedded: int
    classes: list[int]
    cards: list[Card]


def make_gallery(path: str, runs: tuple[Results, ...], count: int | None,
                 progress: Progress) -> Gallery | None:
    """Draws the images, and writes the folder of pictures beside the page.

    Args:
        path: Path of the page.
        runs: One run, or two on the same images.
        count: Number of images to show with the lowest and with the highest score; None shows all.
        progress: Function that shows the progress over images.

    Returns:
        None if no image is to be shown.

    Raises:
        InputError: If the folder of pictures holds other files, or label maps are damaged.
        SaveError: If the pictures could not be written; an earlier folder is unchanged.
    """
    scores = runs[-1].image_scores - (runs[0].image_scores if len(runs) > 1 else 0)
    chosen = _choose(scores, count)
    folder = osp.splitext(path)[0] + '_images'
    check_folder(folder)
    scored = [image for image in chosen if np.isfinite(scores[image])]
    embedded = {*scored[:_EMBEDDED // 2], *scored[-_EMBEDDED // 2:]}
    cards, nbytes, beside = [], 0, 0
    with (_target(folder, len(chosen) > len(embedded)) as part,
          closing(_drawn(runs, chosen)) as drawn):
        for pictures, image in zip(progress(drawn, len(chosen)), chosen):
            inside = image in embedded
            place = _data_url if inside else partial(_write, part, folder, str(image))
            photo = pictures.photo and place('webp', pictures.photo)
            cards.append(describe(runs, image, scores[image], pictures, photo or None,
                               place('png', pictures.layers)))
            if not inside:
                beside, nbytes = beside + 1, nbytes + pictures.nbytes
    if not cards:
        return None
    return Gallery(
        titles=['Image', 'Ground truth', *(['Prediction', 'Difference'] if len(runs) == 1 else
                                           ['A', 'B', 'Change'])],
        note=_NOTES[len(runs) - 1],
        chosen=_say_chosen(cards, scores, count, beside, nbytes, folder),
        missing=_say_missing(cards, runs[0]), folder=osp.basename(folder) if beside else '',
        orders=(('worst first', 'best first'), ('largest loss first', 'largest gain first'))[
            len(runs) - 1],
        score=('mean IoU', 'change of mean IoU')[len(runs) - 1], bounds=_bounds(cards),
        first=min(len(cards), _EMBEDDED // 2), embedded=len(cards) - beside,
        classes=sorted({k for card in cards for k in (*card.shown, *card.predicted)}), cards=cards)


def _target(folder: str, needed: bool) -> AbstractContextManager[str]:
    """Gives the folder to write to; removes an earlier one if it is not needed."""
    if needed:
        return atomic_folder(folder)
    if osp.isdir(folder):
        shutil.rmtree(folder)
    return nullcontext('')


def _drawn(runs: tuple[Results, ...], chosen: list[int]) -> Generator[Pictures, None, None]:
    """Draws images in threads; when it is closed early, those not begun are left out."""
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        try:
            yield from pool.map(partial(draw, runs), chosen)
        finally:
            pool.shutdown(cancel_futures=True)


def check_folder(folder: str) -> None:
    """Refuses a folder of pictures that holds files of others, since it is to be replaced.

    Raises:
        InputError: Naming one of them.
    """
    if osp.isdir(folder):
        foreign = [name for name in sorted(os.listdir(folder)) if not _OWN_FILE.fullmatch(name)]
        if foreign:
            raise InputError(f'{folder} is to hold the pictures of the report, but holds '
                             f'{foreign[0]}: move it, or choose another page with --out')


_NOTES = (
    'Mean IoU over the classes of the ground truth. Difference: wrong pixels in red over the grey '
    'photo; what is not labelled is hatched. The legend gives the share of the labelled pixels in '
    'ground truth | prediction.',
    'Change: pixels that B alone has right in blue, that A alone has right in red, over the grey '
    'photo; what is not labelled is hatched. The legend gives the share of the labelled pixels in '
    'ground truth | A | B.')


def _choose(scores: np.ndarray, count: int | None) -> list[int]:
    """Chooses images by their scores, lowest first; those without a score come last."""
    order = np.argsort(scores, kind='stable').tolist()  # nan comes last
    if count is None or 2 * count >= len(order):
        return order if count != 0 else []
    scored = [image for image in order if np.isfinite(scores[image])]
    best = scored[-count:] if count else []
    return scored[:count] + [image for image in best if image not in scored[:count]]


def _data_url(kind: str, data: bytes) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def _write(part: str, folder: str, name: str, kind: str, data: bytes) -> str:
    """Writes a picture, and returns its address relative to the page.

    Args:
        part: Path of the folder while it is being written.
        folder: Path of the folder.
        name: Name of the file.
        kind: Its ending.
        data: Its content.
    """
    path = osp.join(part, f'{name}.{kind}')
    with open(path, 'wb') as file:
        file.write(data)
    flush(path)
    return f'{quote(os.fsencode(osp.basename(folder)))}/{name}.{kind}'


def _say_chosen(cards: list[Card], scores: np.ndarray, count: int | None, beside: int, nbytes: int,
                folder: str) -> str:
    if len(cards) == len(scores):
        which = f'All {count_of(len(cards), "image")}.'
    else:
        which = (f'{number(len(cards))} of {count_of(len(scores), "image")}: the '
                 f'{number(count or 0)} lowest and the {number(count or 0)} highest; '
                 'tools/report.py --images all shows all.')
    if beside:
        which += (f' The pictures of {number(beside)} ({format_bytes(nbytes)}) are in the folder '
                  f'{osp.basename(folder)} beside the page, and move with it.')
    return which


def _say_missing(cards: list[Card], results: Results) -> str:
    missing = sum(card.photo is None for card in cards)
    return (f'The photos of {count_of(missing, "image")} cannot be read any more from '
            f'{results.run["image_folder"]}: their labels are shown without.') if missing else ''


def _bounds(cards: list[Card]) -> tuple[int, int]:
    scores = [100 * card.score for card in cards if card.score is not None] or [0, 100]
    return int(np.floor(min(scores))), int(np.ceil(max(scores)))
