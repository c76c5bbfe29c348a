"""What a value of a config may be: a test, and the words for it in an error."""
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        words: Noun phrase behind "expected" in an error.
        holds: Whether a value is of this kind.
    """
    words: str
    holds: Callable[[Any], bool]

    def __or__(self, other: 'Kind') -> 'Kind':
        if ANY in (self, other):
            return ANY
        return Kind(f'{self.words} or {other.words}',
                    lambda value: self.holds(value) or other.holds(value))


def is_real(value: Any) -> bool:
    """Returns whether a value is a number, and not True or False."""
    return isinstance(value, Real) and not isinstance(value, bool)


def number(least: float = float('-inf'), most: float = float('inf'),
           above: float = float('-inf')) -> Kind:
    """Returns the kind of finite numbers from ``least`` to ``most`` that exceed ``above``."""
    def holds(value: Any) -> bool:
        return (is_real(value) and abs(value) != float('inf') and least <= value <= most
                and value > above)
    bounds = [f'above {above:g}' if above > float('-inf') else '',
              f'of {least:g} or more' if least > float('-inf') else '',
              f'up to {most:g}' if most < float('inf') else '']
    return Kind(' '.join(['a number', *filter(None, bounds)]), holds)


def whole(least: int | None = None) -> Kind:
    """Returns the kind of whole numbers of ``least`` or more."""
    def holds(value: Any) -> bool:
        return is_real(value) and isinstance(value, Integral) and (
            least is None or int(value) >= least)
    return Kind('a whole number' + (f' of {least} or more' if least is not None else ''), holds)


def many(kind: Kind, length: int | None = None, least: int = 0) -> Kind:
    """Returns the kind of lists and tuples of a kind, of a given or of the least length."""
    def holds(value: Any) -> bool:
        return (isinstance(value, (list, tuple)) and len(value) >= least
                and (length is None or len(value) == length) and all(map(kind.holds, value)))
    size = f'{length} entries' if length is not None else 'entries'
    return Kind(f'a list of {size}, each {kind.words}', holds)


def one_of(*values: str | int | None) -> Kind:
    """Returns the kind of some values."""
    return Kind(('one of ' if len(values) > 1 else '') + ', '.join(map(repr, values)),
                lambda value: isinstance(value, str | int | None) and value in values)


ANY = Kind('anything', lambda value: True)
NONE = Kind('None', lambda value: value is None)
FLAG = Kind('True or False', lambda value: value is None or isinstance(value, bool)
            or type(value) is int and value in (0, 1))
TEXT = Kind('a string', lambda value: isinstance(value, str))
NUMBER = number()
POSITIVE = number(above=0)
WHOLE, COUNT, SIZE = whole(), whole(0), whole(1)
SETTINGS = Kind('dict(...)', lambda value: isinstance(value, Mapping))
TYPED = Kind("dict(type='...', ...)", lambda value: isinstance(value, Mapping) and (
    isinstance(value.get('type'), (str, type)) or callable(value.get('type'))))
TEXTS = TEXT | many(TEXT, least=1)
PAIR = many(SIZE, 2)
# Numbers of iterations, which people write as 8e4 too.
STEPS = Kind('a whole number', lambda value: WHOLE.holds(value) or isinstance(value, float)
             and value.is_integer() and abs(value) < 1e15)


def steps(least: int) -> Kind:
    """Returns the kind of numbers of iterations, of ``least`` or more."""
    return Kind(f'a whole number of {least} or more',
                lambda value: STEPS.holds(value) and value >= least)


def of_parameter(parameter: Parameter, hint: Any = None) -> Kind:
    """Returns the kind that a parameter's annotation asks for, or else its default suggests.

    Args:
        parameter: Parameter of a constructor.
        hint: Its annotation, resolved; None if there is none.
    """
    if hint is not None:
        kind = of_annotation(hint)
        return kind | NONE if parameter.default is None else kind
    default = parameter.default
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, (int, float)):  # a number, or several where a constructor takes both
        return Kind('a number', lambda value: not isinstance(value, (str, bool)))
    if isinstance(default, str):
        return Kind('a string', lambda value: not isinstance(value, (Real, Mapping))
                    or isinstance(value, bool))
    if isinstance(default, (list, tuple)):
        return Kind('a list', lambda value: not isinstance(value, Mapping))
    return ANY


def of_annotation(hint: Any) -> Kind:
    """Returns the kind of values that an annotation asks for; ANY where it cannot be told."""
    plain: dict[Any, Kind] = {bool: FLAG, int: WHOLE, float: NUMBER, str: TEXT, dict: SETTINGS,
                              types.NoneType: NONE, list: many(ANY), tuple: many(ANY)}
    if hint in plain:
        return plain[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [of_annotation(argument) for argument in arguments]
        found = kinds[0]
        for kind in kinds[1:]:
            found = found | kind
        return found
    if origin in (dict, Mapping):
        return SETTINGS
    if origin in (list, Sequence, Collection):
        return many(of_annotation(arguments[0]) if arguments else ANY)
    if origin is tuple:
        return many(ANY)
    return ANY
