"""The one exception that means: the input is wrong, and here is what to do about it."""


import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Wrong input from the user: a file, a key or a value.

    The message is one line that names the file or key, what arrived, what was expected and the
    way out. The command-line tools print it without a traceback and exit with code 1.
    """


def refuse_unknown(place: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Compares the keys of a config's dict with those that there are.

    Raises:
        InputError: Naming the first that is not known, and the nearest that is.
    """
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f' (did you mean {near[0]!r}?)' if near else ''
            raise InputError(f'unknown key in {place}: {name!r}{hint}; known keys: '
                             f'{", ".join(known)}')
