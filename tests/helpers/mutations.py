"""Mutated content of JSON and YAML files: every place of it, with what does not belong there."""
import copy
from collections.abc import Iterator
from typing import Any

DEEP: list = []
for _ in range(200):
    DEEP = [DEEP]
# Values of all types, and some that fit no type's usual range.
ODD = [None, True, -1, 0, 10**30, 1e300, float('nan'), float('inf'), 0.5, '', 'x' * 3000,
       'a\nb\0\ud800', '../../etc/passwd', [], {}, [None], {'': {}}, DEEP]


def mutations(content: dict, skipped: tuple[str, ...] = (), longest: int = 2,
              values: list = ODD) -> Iterator[tuple[str, Any]]:
    """Yields the name of a mutation and a copy of the content that has it.

    Args:
        content: Content of a valid file.
        skipped: Keys at the top that are left as they are.
        longest: Items of a list, and values of a mapping of one type, that are mutated.
        values: Values to put into each place.
    """
    for place in _places(content, longest):
        if place[0] in skipped:
            continue
        name = '.'.join(map(str, place))
        for value in values:
            yield f'{name}={value!r:.40}', _changed(content, place, value)
        yield f'{name} is missing', _changed(content, place)
    for value in values:
        yield f'{value!r:.40}', value


def _places(content: Any, longest: int) -> Iterator[tuple]:
    items = (list(content.items()) if isinstance(content, dict)
             else list(enumerate(content))[:longest] if isinstance(content, list) else [])
    if isinstance(content, dict) and len({type(value) for value in content.values()}) == 1:
        items = items[:longest]
    for key, value in items:
        yield (key,)
        yield from ((key, *rest) for rest in _places(value, longest))


def _changed(content: Any, place: tuple, *value: Any) -> Any:
    """Returns a copy with another value in a place, or without that place."""
    changed = copy.copy(content)
    if len(place) > 1:
        changed[place[0]] = _changed(content[place[0]], place[1:], *value)
    elif value:
        changed[place[0]] = value[0]
    else:
        del changed[place[0]]
    return changed
