"""What a registered class takes from a config: the parameters of its constructors."""
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from ...plugins import is_known
from . import kinds
from .kinds import Kind
from .tables import FURTHER_PARAMETERS, PARAMETERS

GIVEN = ('params', 'dataloader')  # parameters that whoever builds the object fills in
GATHERING = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Reader:
    """What reads a dict of a config.

    Attributes:
        name: Name in an error.
        parameters: Key -> kind of its value.
        is_closed: Whether it fails on any other key.
        known: Keys whose meaning is known, because a class of a known library takes them.
        plugins: Classes and functions of other modules that take any key, and may read it.
    """
    name: str
    parameters: dict[str, Kind]
    is_closed: bool
    known: frozenset[str] = frozenset()
    plugins: tuple[Callable, ...] = ()


def reader_of(target: Callable, extra: dict[str, Kind] | None = None) -> Reader:
    """Returns what a class, or a function that makes objects, takes as keyword arguments.

    A constructor with ``**kwargs`` passes them on to the next in the order of inheritance.

    Args:
        target: Class or function, as a registry holds it.
        extra: Keys that whoever builds it takes out before.
    """
    if not inspect.isclass(target):
        found, is_closed = _own(target)
        return Reader(target.__name__, {**found, **(extra or {})}, is_closed,
                      plugins=() if is_closed or is_known(target) else (target,))
    parameters: dict[str, Kind] = {}
    known: set[str] = set()
    plugins: list[type] = []
    is_closed = False
    for base in inspect.getmro(target):
        if '__init__' not in vars(base) or base is object:
            continue
        own, is_closed = _own(vars(base)['__init__'], skip_first=True)
        if is_known(base):
            known |= own.keys() - parameters.keys()
        elif not is_closed:
            plugins.append(base)
        for name, kind in own.items():  # of a plugin, annotations may be any
            parameters.setdefault(name, kind if is_known(base) else kinds.ANY)
        if is_closed:
            break
    is_closed |= any(base.__name__ in FURTHER_PARAMETERS for base in inspect.getmro(target))
    for base in reversed(inspect.getmro(target)):
        parameters.update(FURTHER_PARAMETERS.get(base.__name__, {}))
        parameters.update({name: kind for name, kind in PARAMETERS.get(base.__name__, {}).items()
                           if name in known})  # a plugin's own may be of any kind
    return Reader(target.__name__, {**parameters, **(extra or {})}, is_closed,
                  frozenset(known | (extra or {}).keys()), tuple(plugins))


def _own(function: Any, skip_first: bool = False) -> tuple[dict[str, Kind], bool]:
    """Returns the keyword arguments of a function, and whether it takes no others."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[bool(skip_first):]
    except (TypeError, ValueError):  # written in C
        return {}, False
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that are imported for type checkers alone
        hints = {}
    # mmcv's decorator lets old names pass, which it holds in its closure.
    old = inspect.getclosurevars(function).nonlocals.get('name_dict', {}) if (
        hasattr(function, '__wrapped__')) else {}
    named = {p.name: kinds.of_parameter(p, hints.get(p.name)) for p in parameters
             if p.kind not in GATHERING and p.name not in GIVEN}
    named.update({before: named[now] for before, now in old.items() if now in named})
    return named, not any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
