"""The names of classes in a config: a list, or a file with one a line."""
import os.path as osp
from collections.abc import Sequence

from ..errors import InputError, hint
from .listing import read_lines


def class_names(classes: str | Sequence[str], known: Sequence[str] | None = None,
                kind: str = 'the data set') -> list[str]:
    """Reads names of classes; blanks around a name do not count.

    Args:
        classes: Names, or a file with one a line.
        known: Names of all classes of the data set, some of which are selected; None for any.
        kind: Name of the data set, for messages.

    Raises:
        InputError: If the file does not exist, or a name is there twice or is of no class.
    """
    source = 'classes'
    if isinstance(classes, str):
        source = classes
        if not osp.isfile(classes):
            raise InputError(f'classes={classes!r}: expected a list of names, or a file with one a '
                             'line')
        with open(classes, 'rb') as file:
            classes = [name for _, name in read_lines(file.read())]
    of_plain = {name.strip(): name for name in known or ()}
    names = [of_plain.get(str(name).strip(), name) for name in classes]
    unknown = [name for name in names if of_plain and name not in of_plain.values()]
    if unknown:
        raise InputError(f'{source} names {unknown[0]!r}, which is no class of {kind}'
                         f'{hint(str(unknown[0]).strip(), of_plain)}')
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f'{source} names {twice[0]!r} twice: expected each class once')
    return names
