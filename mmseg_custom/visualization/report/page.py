"""The page: headline, classes, confusions, images; one file without scripts or pictures elsewhere.

Its rules forbid the browser to fetch anything (Content-Security-Policy). It reads well without
JavaScript, which only sorts and filters.
"""
import os
from importlib import resources

import numpy as np

from ...errors import InputError
from ...evaluation.bootstrap import compare
from ...evaluation.results import Results
from ...files import atomic_path
from . import classes, headline, pictures
from .text import escape

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>
{script}</script>
</body>
</html>
"""


def write_report(path: str, a: Results, b: Results | None = None, images: int = 6) -> None:
    """Writes the page on a test run, or on two that are compared.

    Args:
        path: Of the .html; its folder is made.
        a: The run.
        b: Another run on the same images; the comparison is B minus A.
        images: How many of the worst and of the best images are shown.

    Raises:
        InputError: If the two runs are not of the same images and classes.
        SaveError: If the page could not be written; an earlier one is unchanged.
    """
    if b is None:
        sections = [headline.one(a), classes.table_of_one(a), classes.confusions(a),
                    pictures.worst_and_best(a, images)]
        title = f'{_name(a)}: mIoU {100 * a.run["metric"]["mIoU"]:.2f}'
    else:
        _check_same(a, b)
        found = compare(a.areas, b.areas)
        sections = [headline.two(a, b, found), classes.table_of_two(a, b, found),
                    classes.confusions(b, 'Confusions that cost most in B'),
                    pictures.changed(a, b, images)]
        title = f'{_name(a)} and {_name(b)}: {100 * found.miou:+.2f} mIoU'
    files = resources.files(__package__)
    text = _PAGE.format(policy=_POLICY, title=escape(title), body='\n'.join(sections),
                        style=files.joinpath('style.css').read_text(encoding='utf-8'),
                        script=files.joinpath('script.js').read_text(encoding='utf-8'))
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with atomic_path(path) as part, open(part, 'w', encoding='utf-8') as file:
        file.write(text)


def _name(results: Results) -> str:
    return os.path.splitext(os.path.basename(results.run['config']))[0]


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
    count = len(a.classes)
    differ = (a.images.truth_areas(count) != b.images.truth_areas(count)).any(1)
    if differ.any():
        raise InputError(f'{a.path} and {b.path} were measured on different labels, of '
                         f'{names[0][int(np.argmax(differ))]} first: test one of them again')
