"""The page on one run or on two: headline, curves, classes, confusions, images.

All but the pictures of many images is in the file itself. Its Content-Security-Policy lets the
browser fetch these alone. Without JavaScript the page shows all its figures and its first images.
"""
import os
from collections.abc import Iterable
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from ...errors import InputError
from ...evaluation.bootstrap import compare
from ...evaluation.results import Results
from ...files import atomic_write
from . import headline, tables
from .curves import curves
from .gallery import Gallery, Progress, make_gallery
from .matrix import confusion_matrix
from .numbers import anchor, count_of, number, percent, points


def silently(items: Iterable, count: int) -> Iterable:
    """Shows no progress."""
    return items


def write_report(path: str, a: Results, b: Results | None = None, images: int | None = 100,
                 progress: Progress = silently) -> list[str]:
    """Writes the page on a test run, or on two that are compared.

    Args:
        path: Path of the .html; its folder is made.
        a: Results of the run.
        b: Results of another run on the same images; the comparison is B minus A.
        images: Number of the worst and of the best images to show; None shows all.
        progress: Function that shows the progress over images: (images, their number) -> images.

    Returns:
        Lines that say what the top of the page says, for a terminal.

    Raises:
        InputError: If the two runs are not on the same images and classes, or the folder of the
            pictures holds other files.
        SaveError: If the page could not be written; an earlier one is unchanged.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    if b is not None:
        _check_same(a, b)
    gallery = make_gallery(path, (a,) if b is None else (a, b), images, progress)
    text, lines = _page_on_one(a, gallery) if b is None else _page_on_two(a, b, gallery)
    write_page(path, text)
    notes = (gallery.chosen, gallery.missing) if gallery else ()
    return lines + [f'  {note}' for note in notes if note]


def _page_on_one(a: Results, gallery: Gallery | None) -> tuple[str, list[str]]:
    """Returns the page on a run, and what it says in words."""
    text = render(
        'run.html', a=a, metrics=headline.metrics(a), counts=headline.counts(a),
        histogram=headline.histogram(a), charts=curves(a), matrix=confusion_matrix(a),
        tables=[*tables.data_sets(a), tables.classes_of_one(a), tables.confusions(a)],
        gallery=gallery)
    return text, headline.in_words(a)


def _page_on_two(a: Results, b: Results, gallery: Gallery | None) -> tuple[str, list[str]]:
    """Returns the page on two runs, and what it says in words."""
    found = compare(a.areas, b.areas, a.ground_truth_areas)
    before, after = (results.run['metric']['mIoU'] for results in (a, b))
    text = render(
        'comparison.html', a=a, b=b, found=found, metrics=headline.metrics(a, b),
        measured=None if None in (before, after) else after - before,
        better=found.significant[found.iou > 0].sum(),
        worse=found.significant[found.iou < 0].sum(), charts=curves(a, b),
        matrix=confusion_matrix(b, ' of B'),
        tables=[*tables.data_sets(a, b), tables.classes_of_two(a, b, found),
                tables.confusions(b, 'Confusions that cost most in B')],
        gallery=gallery)
    return text, headline.compared_in_words(a, b, found)


def write_page(path: str, text: str) -> None:
    """Writes a page.

    Raises:
        SaveError: If it could not be written; an earlier one is unchanged.
    """
    atomic_write(path, text.encode(errors='replace'))  # names of files that are not UTF-8


def render(template: str, **context: object) -> str:
    """Fills in a template."""
    return _templates().get_template(template).render(context)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=select_autoescape(),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True)
    environment.filters.update(anchor=anchor, count_of=count_of, number=number, percent=percent,
                               points=points, origin=headline.origin)
    return environment


def _check_same(a: Results, b: Results) -> None:
    """Refuses runs that cannot be compared image by image."""
    if a.classes != b.classes:
        raise InputError(f'{a.path} has {len(a.classes)} classes, {b.path} has {len(b.classes)} '
                         'or others: results of the same data can be compared')
    names = [results.images.names.tolist() for results in (a, b)]
    if names[0] != names[1]:
        only = sorted(set(names[0]) ^ set(names[1]))
        first = f'{only[0]} is in one of them alone' if only else 'their order differs'
        raise InputError(f'{a.path} is of {len(names[0])} images, {b.path} of {len(names[1])}: '
                         f'{first}; results of the same images can be compared')
    differ = (a.ground_truth_areas != b.ground_truth_areas).any(1)
    if differ.any():
        raise InputError(f'{a.path} and {b.path} were measured on different labels, of '
                         f'{names[0][int(np.argmax(differ))]} first: test one of them again')
