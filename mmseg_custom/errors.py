"""The one exception that means: the input is wrong, and here is what to do about it."""
import difflib
import os.path as osp
import re
import sysconfig
import traceback
from collections.abc import Iterable, Sequence

CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')  # characters that move the cursor
LONGEST = 400  # characters of a library's message
SHOWN = 3  # names of many that a line shows
PACKAGE = osp.dirname(osp.realpath(__file__)) + osp.sep
# Folders of the installed packages and of Python itself.
LIBRARIES = tuple({osp.realpath(sysconfig.get_paths()[name]) + osp.sep
                   for name in ('purelib', 'platlib', 'stdlib')})
# Similarity of two names, 0..1, from which one is taken for the other mistyped; and from which it
# is worth naming where the name is refused anyway.
NEAR, NEAR_IF_REFUSED = 0.8, 0.6


class InputError(ValueError):
    """Wrong input from the user: a file, a key or a value.

    The message is one line that names the file or key, what arrived, what was expected and the
    way out. The command-line tools print it without a traceback and exit with code 1. Line ends
    and other control characters, which a file's name may hold, are escaped.
    """

    def __init__(self, message: object = ''):
        text = str(message)
        if text.startswith('Caught ') and 'Original Traceback' in text:
            # torch raises a loader worker's error again, with its traceback for a message.
            text = text.strip().rpartition(f'{InputError.__name__}: ')[2]
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """Escapes line ends and other control characters of a text."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def words_of(error: BaseException) -> str:
    """Returns the type of a library's error, and what it says, on one line."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    if text.startswith('Caught '):  # of a loader worker: a traceback
        return text.splitlines()[-1]
    text = ' '.join(text.partition('Exception raised from')[0].split())  # and torch's C++ frames
    text = f'{text[:LONGEST]}...' if len(text) > LONGEST else text
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def nearest(name: str, known: Iterable[str], near: float = NEAR) -> str | None:
    """Returns the known name that ``name`` is most likely mistyped from; None if none is near."""
    known = list(known)
    same = next((each for each in known if each.lower() == name.lower()), None)
    return same or next(iter(difflib.get_close_matches(name, known, n=1, cutoff=near)), None)


def hint(name: str, known: Iterable[str], near: float = NEAR_IF_REFUSED) -> str:
    """Returns ' (did you mean 'x'?)' for the nearest known name; nothing if none is near."""
    found = nearest(name, known, near)
    return f' (did you mean {found!r}?)' if found is not None else ''


def some_of(names: Iterable[object], shown: int = SHOWN) -> str:
    """Returns the first of some names and the number of the others: 'a, b, c and 245 more'."""
    texts = list(map(str, names))
    return ', '.join(texts[:shown]) + (f' and {len(texts) - shown} more' if texts[shown:] else '')


def refuse_unknown(place: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Compares the keys of a config's dict with those that there are.

    Raises:
        InputError: Naming the first that is not known, and the nearest that is.
    """
    known = list(known)
    for name in names:
        if name not in known:
            near = hint(name, known)
            raise InputError(f'unknown key in {place}: {name!r}'
                             + (near or f'; known keys: {", ".join(known)}'))


def refuse_failed(messages: Sequence[str], count: int, what: str) -> None:
    """Ends a tool whose work on some of its items failed.

    Args:
        messages: What is wrong with each that failed.
        count: Number of all items.
        what: Name of many items.

    Raises:
        InputError: If there are any: their number, and the first message.
    """
    if messages and count > 1:
        raise InputError(f'{len(messages)} of {count} {what} failed, the others are done; the '
                         f'first: {messages[0]}')
    if messages:
        raise InputError(messages[0])


def comes_from_library(error: BaseException) -> bool:
    """Returns whether an error was raised by an installed library, and none of it by this code.

    What a library raises while it builds or runs what a config asks for is most often wrong input.
    An error in this package, or in a user's own module, is a fault of that code.
    """
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or each.__context__
    return all(_is_misfit(each) or _is_library(_raised_in(each), each) for each in chain)


def _is_misfit(error: BaseException) -> bool:
    """Returns whether a constructor was called with other arguments than it has.

    Our own pass a config's on to those that they inherit from, and are where Python finds out.
    """
    return isinstance(error, TypeError) and re.search(
        r'__init__\(\) (missing|got|takes) ', str(error)) is not None


def _is_library(file: str, error: BaseException) -> bool:
    if file.startswith(PACKAGE):  # The layers refuse shapes by a ValueError, as a library does.
        return isinstance(error, ValueError) and file.startswith(osp.join(PACKAGE, 'layers', ''))
    return file.startswith((*LIBRARIES, '<frozen '))


def _raised_in(error: BaseException) -> str:
    """Returns the file whose code raised an error; of one of a loader worker, in that worker."""
    files = re.findall(r'^ *File "([^"]+)", line', str(error), re.M) if (
        str(error).startswith('Caught ')) else []
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    files += [frames[-1].f_code.co_filename] if frames and not files else []
    return files[-1] if files and files[-1].startswith('<') else osp.realpath(
        files[-1] if files else '')
