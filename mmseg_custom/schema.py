"""What the content of a file must be: small checks, put together; what fails is one line.

    COLOUR = array(integer(0, 255), 'a colour such as [0, 0, 200]', 3, 3)
    validate(content, record(dict(name=text, colour=COLOUR)), 'sky.json')

A file is checked once, where it is read; what reads its content afterwards relies on that.
"""
import json
import math
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from .errors import InputError

Check = Callable[[Any, str], None]  # (value, place of it in the file); raises Mismatch


class Mismatch(Exception):
    """A value is not what its place in a file asks for."""


class _Short(reprlib.Repr):
    """Limits of what a message shows of a value."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 60, 60, 40


def validate(content: Any, check: Check, path: str, way_out: str = '') -> None:
    """Checks the content of a file.

    Args:
        content: What a parser of JSON or YAML returned.
        check: Check of the whole.
        path: Path of the file, for the message.
        way_out: Instruction to the user, for the end of the message.

    Raises:
        InputError: For the first value that does not fit: its place, what it is and what was
            expected, in one line.
    """
    try:
        check(content, '')
    except Mismatch as error:
        raise InputError(f'{path}: {error}{way_out and f"; {way_out}"}') from None


def mismatch(place: str, value: Any, expected: str) -> Mismatch:
    """Says in one line what is in a place, however long, and what was expected."""
    return Mismatch(f'{place}: {shorten(value)}, expected {expected}' if place
                    else f'{shorten(value)}, expected {expected}')


def shorten(value: Any) -> str:
    """Formats a value of any size and depth in one short line."""
    return _Short().repr(value)


def anything(value: Any, place: str) -> None:
    """Takes every value."""


def scalar(value: Any, place: str) -> None:
    """Takes everything but lists and mappings."""
    if isinstance(value, (list, dict)):
        raise mismatch(place, value, 'a text or a number')


def text(value: Any, place: str) -> None:
    """Takes a string."""
    if not isinstance(value, str):
        raise mismatch(place, value, 'a text')


def line(value: Any, place: str) -> None:
    """Takes a string that can be printed in a line and written to a file."""
    text(value, place)
    if not value.strip() or any(unicodedata.category(char) in _UNPRINTABLE for char in value):
        raise mismatch(place, value, 'a text of one line')


def path_text(value: Any, place: str) -> None:
    """Takes a path: a string without NUL; names that are not UTF-8 hold surrogates."""
    if (not isinstance(value, str) or not value or '\0' in value
            or max(map(len, value.split('/'))) > _LONGEST_NAME):
        raise mismatch(place, value, 'a path')


def switch(value: Any, place: str) -> None:
    """Takes True and False."""
    if not isinstance(value, bool):
        raise mismatch(place, value, 'true or false')


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """Returns a check that takes finite numbers within bounds."""
    def check(value: Any, place: str) -> None:
        if (not isinstance(value, (int, float)) or isinstance(value, bool)
                or not low <= value <= high or abs(value) > _LARGEST):
            raise mismatch(place, value, 'a number' + _bounds(low, high))
    return check


def integer(low: float = -math.inf, high: float = math.inf) -> Check:
    """Returns a check that takes whole numbers within bounds."""
    def check(value: Any, place: str) -> None:
        if (not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high
                or abs(value) > _LARGEST):
            raise mismatch(place, value, 'a whole number' + _bounds(low, high))
    return check


def choice(*names: str) -> Check:
    """Returns a check that takes some strings."""
    def check(value: Any, place: str) -> None:
        if not isinstance(value, str) or value not in names:
            raise mismatch(place, value, ' or '.join(names))
    return check


def array(item: Check, expected: str, least: int = 0, most: float = math.inf) -> Check:
    """Returns a check that takes lists.

    Args:
        item: Check of each item.
        expected: What the list is to be, for the message about another value.
        least: Smallest length.
        most: Largest length.
    """
    def check(value: Any, place: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise mismatch(place, value, expected)
        for i, one in enumerate(value):
            item(one, f'{place}[{i}]')
    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None,
           others: Check | None = anything) -> Check:
    """Returns a check that takes mappings with certain keys.

    Args:
        required: Check of the value of each key that must be there.
        optional: Check of the value of each key that may be there.
        others: Check of the values of other keys; None refuses them.
    """
    known = {**required, **(optional or {})}

    def check(value: Any, place: str) -> None:
        prefix = f'{place}.' if place else ''
        if not isinstance(value, dict):
            keys = ', '.join(list(required)[:6]) or 'names as keys'
            raise mismatch(place, value, f'a mapping ({keys})')
        for key in required:
            if key not in value:
                raise Mismatch(f'{prefix}{key} is missing')
        for key, one in value.items():
            if not isinstance(key, str):
                raise mismatch(f'{prefix}{shorten(key)}', key, 'a text as the key')
            if key not in known and others is None:
                raise Mismatch(f'{shorten(prefix + key)} is not known: expected '
                               f'{", ".join(sorted(known))}')
            known.get(key, others or anything)(one, f'{prefix}{key}')
    return check


def load_json(path: str, expected: str) -> Any:
    """Parses a JSON file; nan and infinity, which strict JSON does not have, become null.

    Args:
        path: Path of the file.
        expected: What the file is to be, for the message.

    Returns:
        Content, which is yet to be checked.

    Raises:
        InputError: If it cannot be read, is no JSON, is longer than any file that is read here, or
            has a key twice in one mapping.
    """
    try:
        with open(path, encoding='utf-8-sig') as file:
            content = file.read(_MOST_CHARACTERS + 1)
        if len(content) > _MOST_CHARACTERS:
            raise ValueError(f'more than {_MOST_CHARACTERS:,} characters')
        return json.loads(content, parse_constant=lambda word: None,
                          object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): expected '
                         f'{expected}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is no JSON file ({error}): expected {expected}') from error


def read_json(path: str, check: Check | None = None) -> Any:
    """Reads a JSON file that an earlier process wrote, and that can be done without.

    Args:
        path: Path of the file.
        check: Check of its content; default: any mapping.

    Returns:
        Content; None if the file is missing or damaged, or does not fit.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        (check or record({}))(content, '')
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError, Mismatch):
        return None
    return content


def nullable(check: Check) -> Check:
    """Returns a check that takes null, too."""
    def check_or_null(value: Any, place: str) -> None:
        if value is not None:
            check(value, place)
    return check_or_null


_UNPRINTABLE = ('Cc', 'Cs', 'Zl', 'Zp')  # control characters, lone surrogates, ends of lines
_LONGEST_NAME = 255  # of a file, on the file systems of Linux
_LARGEST = 2.0 ** 63  # of what numpy and a page can hold
_MOST_CHARACTERS = 64_000_000  # of a JSON file; results of 150 classes take 50,000


def _bounds(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ''
    if math.isinf(high):
        return f' of {low:g} or more'
    return f' from {low:g} to {high:g}'


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f'the key {shorten(twice)} is there twice')
    return found
