"""The names of classes in a config: a list, or a file with one a line; and those of data sets."""
import os.path as osp
from collections.abc import Sequence

from ..errors import InputError, hint
from ..missing import look_around
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
            where = '' if osp.exists(classes) else f'; no such file{look_around(classes)}'
            raise InputError(f'classes={classes!r}: expected a list of names, or a file with one a '
                             f'line{where}')
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


class ClassMismatch(InputError):
    """A label is another class in one place than in another.

    Args:
        difference: What differs.
        way_out: What to do about it.
    """

    def __init__(self, difference: str, way_out: str):
        super().__init__(f'{difference}: {way_out}')
        self.difference, self.way_out = difference, way_out


def plain_names(classes: Sequence[str] | None) -> list[str]:
    """Returns names of classes as they are compared: without case and blanks around them."""
    return [str(name).strip().lower() for name in classes or ()]


def first_difference(ours: Sequence[str], theirs: Sequence[str]) -> tuple[int, str, str]:
    """Returns number and both names of the first class that differs, where one does."""
    return next((number, our, their) for number, (our, their) in enumerate(zip(ours, theirs))
                if our != their)


def compare_classes(data: tuple[str, Sequence[str] | None], other: tuple[str, Sequence[str] | None]
                    ) -> str | None:
    """Compares the classes of two data sets that share the numbers of their labels.

    Args:
        data: Name of a data set in messages, and its classes.
        other: The same of the other one.

    Returns:
        First class that differs, in words; None where all are the same or a data set names none.

    Raises:
        ClassMismatch: If their numbers differ, or the same names come in another order: a label of
            the one is another class in the other.
    """
    (here, ours), (there, theirs) = ((place, plain_names(names)) for place, names in (data, other))
    if not ours or not theirs or ours == theirs:
        return None
    if len(ours) != len(theirs):
        raise ClassMismatch(f'{here} has {len(ours)} classes, {there} {len(theirs)}',
                            'set classes in both alike')
    number, our, their = first_difference(ours, theirs)
    line = f'class {number} is {our!r} in {here}, and {their!r} in {there}'
    if sorted(ours) == sorted(theirs):
        raise ClassMismatch(line, 'set classes in both in the same order')
    return line
