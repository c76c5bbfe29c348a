"""Facts about large files, cached in the user's cache folder as long as they do not change."""
import json
import logging
import os

from ..files import atomic_write
from ..schema import line, read_json, record

_CONTENT = record({}, others=line)  # identity of a file -> what is known of it


def identity_of(path: str) -> str:
    """Returns a string that changes when a file, or the metadata of a folder, is written again."""
    file = os.path.join(path, '.metadata') if os.path.isdir(path) else path
    stat = os.stat(file)
    return f'{os.path.realpath(path)} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}'


def cache_folder() -> str:
    """Returns this package's folder in the user's cache."""
    home = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return os.path.join(home, 'mmseg_custom')


def read_cache(name: str) -> dict[str, str]:
    """Reads a JSON file of the cache; empty if there is none, or if it is damaged."""
    try:
        return read_json(os.path.join(cache_folder(), name), _CONTENT) or {}
    except OSError:
        return {}


def write_cache(name: str, content: dict[str, str]) -> None:
    """Adds entries to a JSON file of the cache; does nothing without a writable home folder."""
    path = os.path.join(cache_folder(), name)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        atomic_write(path, json.dumps({**read_cache(name), **content}, indent=0), unique=True)
    except OSError as error:
        logging.getLogger('mmseg').debug('%s is not kept: %s', name, error)
