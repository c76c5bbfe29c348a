"""The page: headline, classes, confusions, images; one file that refers to no other.

Its Content-Security-Policy forbids the browser to fetch anything. The page reads well without
JavaScript, which only sorts and filters.
"""
import os
from functools import cache, partial

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from ...errors import InputError
from ...evaluation.bootstrap import compare
from ...evaluation.results import Results
from ...files import atomic_write
from ..files import data_url
from . import headline, pictures, tables
from .numbers import number, percent, points


def write_report(path: str, a: Results, b: Results | None = None, images: int = 6) -> None:
    """Writes the page on a test run, or on two that are compared.

    Args:
        path: Path of the .html; its folder is made.
        a: Results of the run.
        b: Results of another run on the same images; the comparison is B minus A.
        images: Number of the worst and of the best images to show.

    Raises:
        InputError: If the two runs are not on the same images and classes.
        SaveError: If the page could not be written; an earlier one is unchanged.
    """
    if b is None:
        text = _render('run.html', a=a, metrics=headline.metrics(a),
                       histogram=headline.histogram(a),
                       tables=[*tables.data_sets(a), tables.classes_of_one(a),
                               tables.confusions(a)],
                       galleries=pictures.worst_and_best(a, images))
    else:
        _check_same(a, b)
        found = compare(a.areas, b.areas)
        text = _render('comparison.html', a=a, b=b, found=found, metrics=headline.metrics(a, b),
                       better=found.significant[found.iou > 0].sum(),
                       worse=found.significant[found.iou < 0].sum(),
                       tables=[*tables.data_sets(a, b), tables.classes_of_two(a, b, found),
                               tables.confusions(b, 'Confusions that cost most in B')],
                       galleries=pictures.changed(a, b, images))
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    atomic_write(path, text.encode(errors='replace'))  # names of files that are not UTF-8


def _render(template: str, **context: object) -> str:
    return _templates().get_template(template).render(context)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=select_autoescape(),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True)
    environment.filters.update(
        number=number, percent=percent, points=points, origin=headline.origin,
        webp=partial(data_url, kind='WEBP', quality=78))
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
