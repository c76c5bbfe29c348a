"""Wrong values at each place of nested dicts and lists."""
import math
from collections.abc import Iterator
from typing import Any

GONE = object()
VALUES = [None, 'x', '', -1, 0, 1.5, True, [], {}, [None], [-1, 'x'], {'type': 'x'}, math.inf,
          math.nan, 10**9, '\n', GONE]


def paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yields the path of each value, containers included."""
    if path:
        yield path
    for key, part in items_of(value):
        yield from paths(part, (*path, key))


def changed(part: Any, path: tuple, value: Any) -> Any:
    """Returns a copy with another value at a path, or without it."""
    key, *rest = path
    if not rest and value is GONE:
        new = [(name, one) for name, one in items_of(part) if name != key]
    else:
        new = [(name, (changed(one, rest, value) if rest else value) if name == key else one)
               for name, one in items_of(part)]
    return dict(new) if isinstance(part, dict) else type(part)(one for _, one in new)


def items_of(value: Any) -> list[tuple]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, (list, tuple)) else []


def name_of(path: tuple, value: Any) -> str:
    """Returns how a change is called."""
    return '.'.join(map(str, path)) + (' is gone' if value is GONE else f'={value!r}')
