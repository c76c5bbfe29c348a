"""What helps with a path that does not exist: where it was looked for, and what is near.

The standard library alone: the tools read this file without the package, whose import takes
seconds.
"""
import difflib
import os
import os.path as osp
from contextlib import suppress
from itertools import islice

ROOT = osp.dirname(osp.dirname(osp.realpath(__file__)))  # of the repository
MOST_NAMES = 10000  # of a folder that are compared
NEAR = 0.6  # similarity of two names, 0..1


def look_around(path: str, otherwise: str = '') -> str:
    """Returns the rest of a sentence '... PATH does not exist': the folder, and what is near.

    Args:
        path: Path that does not exist.
        otherwise: The way out, where the repository does not hold the path either.
    """
    here = '' if osp.isabs(path) else f' in {os.getcwd()}'
    if here and osp.exists(osp.join(ROOT, path)):
        return (f'{here}; it is in {ROOT}: run the command there, or give '
                f'{osp.normpath(osp.join(ROOT, path))}')
    near = nearest_path(path)
    if near is not None:
        return f'{here} (did you mean {near}?): {otherwise}' if otherwise else (
            f'{here}: did you mean {near}?')
    return f'{here}: {otherwise}' if otherwise else here


def nearest_path(path: str) -> str | None:
    """Returns an existing path whose first differing part is like that of ``path``; or None."""
    folder, name, rest = path, '', ''
    while not osp.exists(folder or os.curdir):
        rest = osp.join(name, rest) if name else ''
        folder, name = osp.split(folder.rstrip(os.sep))
    if not osp.isdir(folder or os.curdir) or not name:
        return None
    with suppress(OSError), os.scandir(folder or os.curdir) as entries:
        names = [entry.name for entry in islice(entries, MOST_NAMES)
                 if entry.name != name]  # that of a link to nothing
        for near in difflib.get_close_matches(name, names, n=1, cutoff=NEAR):
            found = osp.join(folder, near)
            whole = osp.join(found, rest).rstrip(os.sep)
            return whole if osp.exists(whole) else found
    return None
