"""Facts about large files, cached in the user's cache folder as long as they do not change."""
import glob
import json
import logging
import os
import time
from contextlib import suppress

from ..files import PART, atomic_write
from ..schema import line, read_json, record

_LEFTOVER_SECONDS = 3600  # age of a half-written file that no process is at
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


def _remove_leftovers(path: str) -> None:
    """Removes what processes that were killed have left of a file."""
    for part in glob.glob(f'{glob.escape(path)}.*{PART}'):
        with suppress(OSError):
            if time.time() - os.path.getmtime(part) > _LEFTOVER_SECONDS:
                os.remove(part)


def write_cache(name: str, content: dict[str, str]) -> None:
    """Adds entries to a JSON file of the cache; does nothing without a writable home folder."""
    path = os.path.join(cache_folder(), name)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _remove_leftovers(path)
        atomic_write(path, json.dumps({**read_cache(name), **content}, indent=0), unique=True)
    except OSError as error:
        logging.getLogger('mmseg').debug('%s is not kept: %s', name, error)
