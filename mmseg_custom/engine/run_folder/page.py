"""Fills the templates of ``README.md``: what is inserted reads as text, whatever it holds."""
from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

MARK = '<!-- written by InternViT-Seg'  # begins the pages that may be overwritten
_SPECIAL = re.compile(r'[\\`*\[\]<>|~#&$!]|(?<![^\W_])_|_(?![^\W_])')
_TICKS = re.compile('`+')


def render(template: str, **context: object) -> str:
    """Renders a template of this package."""
    return _templates().get_template(template).render(mark=MARK, **context)


def is_ours(path: str) -> bool:
    """Returns whether a page may be overwritten: there is none, or it begins with the mark."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read(len(MARK)) == MARK
    except FileNotFoundError:
        return True


def text(value: object) -> str:
    """Escapes what Markdown and HTML would take for more than text; also for cells of tables."""
    plain = ' '.join(str(value).split())
    return _SPECIAL.sub(lambda found: rf'\{found[0]}' if found[0] != '&' else '&amp;', plain)


def code(value: object) -> str:
    """Formats a text as code in a line, or in a cell of a table."""
    plain = ' '.join(str(value).split())
    if not plain:
        return ''
    ticks = '`' * (1 + max((len(run) for run in _TICKS.findall(plain)), default=0))
    room = ' ' if plain[0] == '`' or plain[-1] == '`' else ''
    return f'{ticks}{room}{plain}{room}{ticks}'.replace('|', r'\|')


def block(commands: list[str]) -> str:
    """Formats commands as a block of a shell, one a line."""
    lines = '\n'.join(commands)
    ticks = '`' * max(3, 1 + max((len(run) for run in _TICKS.findall(lines)), default=0))
    return f'{ticks}sh\n{lines}\n{ticks}'


def percent(value: float | None) -> str:
    """Formats 0..1 in percent, with two decimals; a dash for no value."""
    return '-' if value is None else f'{100 * value:.2f}'


def duration(seconds: float) -> str:
    """Formats a time in its two largest units: '1 h 20 min'."""
    whole = round(seconds)
    for large, small, unit, part in ((86400, 3600, 'd', 'h'), (3600, 60, 'h', 'min'),
                                     (60, 1, 'min', 's')):
        if whole >= large:
            return f'{whole // large} {unit} {whole % large // small} {part}'
    return f'{whole} s'


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here: a run starts sooner
    environment = Environment(  # noqa: S701 - the result is Markdown, which ``text`` escapes
        loader=PackageLoader(__package__), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters.update(text=text, code=code, block=block, percent=percent,
                               duration=duration)
    return environment
