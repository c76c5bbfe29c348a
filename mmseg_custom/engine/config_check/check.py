"""Checks a config when it is loaded: each key has a reader, each value a kind that it accepts.

What reads a dict is known from the class that is registered under its ``type`` and from its
constructors, or, for the dicts without a type, from :mod:`.tables`. A key that nothing reads is
refused where the reader would fail on it, where it comes from ``--cfg-options``, and where it is
mistyped from one that is read; else it is reported, and the run goes on.
"""
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mmcv import Config

from ...errors import InputError, hint, nearest
from ...schema import shorten
from .sections import Section, sections
from .sources import is_written_in, may_be_read_by, read_by_config, read_by_plugins
from .tables import SETTINGS_OF_RUNS, TESTED, WITHOUT_EFFECT

# Similarity from which a variable, whose name is free, is taken for a key; `validation`, which our
# own configs have, is not `evaluation`.
NEAR_AT_TOP = 0.85


def check_config(cfg: Config, given: Mapping[str, Any] | None = None,
                 trains: bool = True) -> list[str]:
    """Checks the keys and the values of a config.

    Args:
        cfg: Config as loaded, with the given options.
        given: Options of ``--cfg-options``: key, with dots -> value.
        trains: Whether the settings of a training are read, and not those of a test alone.

    Returns:
        Keys of the config that nothing is known to read.

    Raises:
        InputError: For a value of another kind, and for keys as described above.
    """
    unread: list[str] = []
    named = _leaves(given or {})
    plain = cfg._cfg_dict
    for section in sections(plain if trains else _tested(plain)):
        for name, value in section.options.items():
            kind = section.reader.parameters.get(name)
            if kind is None:
                unread += _unknown(cfg, section, name, named)
            elif not kind.holds(value):
                raise InputError(f'{section.key(name)}={shorten(value)}: expected {kind.words}')
    return unread


def _tested(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config without the settings that a test does not read."""
    found = {name: value for name, value in cfg.items()
             if name in TESTED or name not in SETTINGS_OF_RUNS}
    if isinstance(found.get('data'), Mapping):
        found['data'] = {name: value for name, value in found['data'].items()
                         if not name.startswith(('train', 'val'))}
    return found


def _leaves(given: Mapping[str, Any], place: str = '') -> list[str]:
    """Returns the full keys of given options, which may be dicts themselves."""
    found: list[str] = []
    for name, value in given.items():
        key = f'{place}.{name}' if place else str(name)
        found += _leaves(value, key) if isinstance(value, Mapping) and value else [key]
    return found


def _unknown(cfg: Config, section: Section, name: str, named: Collection[str]) -> list[str]:
    """Refuses or reports a key that is not known to be read.

    Raises:
        InputError: If it is refused.
    """
    key, known = section.key(name), section.reader.parameters
    option = next((each for each in named if f'{each}.'.startswith(f'{key}.')), None)
    if not section.place:
        return _unknown_at_top(cfg, name, option)
    if any(may_be_read_by(name, plugin) for plugin in section.reader.plugins):
        return []
    near = nearest(name, known)
    if section.reader.is_closed or option is not None or near is not None:
        raise InputError(f'unknown key in {section.place}: {name!r}'
                         + (hint(name, known) or _known_keys(section, option)))
    return [key]


def _known_keys(section: Section, option: str | None) -> str:
    """Returns the keys of a section, and how it is rid of those that a base config has."""
    way_out = '' if option is not None else (
        f'; where a base config brings it, start the dict anew with _delete_=True, e.g. '
        f'--cfg-options {section.place}._delete_=True and all its keys')
    return (f'; known keys of {section.reader.name}: {", ".join(sorted(section.reader.parameters))}'
            f'{way_out}')


def _unknown_at_top(cfg: Config, name: str, option: str | None) -> list[str]:
    if name in WITHOUT_EFFECT:
        if option is not None:
            raise InputError(f'--cfg-options {option}: a run does not read it; use '
                             f'{WITHOUT_EFFECT[name]}')
        return []
    if read_by_plugins(name, cfg):
        return []
    near = nearest(name, SETTINGS_OF_RUNS, NEAR_AT_TOP)
    if option is not None:
        rest = option.removeprefix(name)
        raise InputError(f'--cfg-options {option}: nothing reads {name!r}'
                         + (f'; did you mean {near + rest!r}?' if near else _where_used(cfg, name)))
    if read_by_config(name, cfg):
        return []
    if near is not None:
        raise InputError(f'config {cfg.filename}: nothing reads {name!r}; did you mean {near!r}? '
                         'If it is a variable of your own, remove it or give it another name')
    return [name] if is_written_in(name, cfg) else []


def _where_used(cfg: Config, name: str) -> str:
    """Returns a hint for a variable of a config file, which the file has used by now."""
    places = [key for key in _keys(cfg._cfg_dict) if key.endswith(f'.{name}')
              and key.split('.')[0] in ('model', 'data', 'optimizer')]
    if not places:
        return ''
    return f': the config file has used its variable already; set {" ".join(places[:4])}'


def _keys(node: Any, place: str = '') -> Iterable[str]:
    if isinstance(node, Mapping):
        entries = list(node.items())
    elif isinstance(node, (list, tuple)):
        entries = list(enumerate(node))
    else:
        return
    for name, value in entries:
        key = f'{place}.{name}' if place else str(name)
        yield key
        yield from _keys(value, key)
