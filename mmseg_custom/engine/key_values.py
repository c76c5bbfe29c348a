"""Values of ``--cfg-options`` and ``--eval-options``: text -> numbers, strings, lists, tuples."""
import argparse

from mmcv import DictAction

from ..errors import InputError

OPTIONS = ('cfg_options', 'eval_options')


def convert(args: argparse.Namespace) -> argparse.Namespace:
    """Converts the values of a command line's ``KEY=VALUE`` options; other options are kept.

    Raises:
        InputError: If the brackets of a value do not match.
    """
    options = {name: {key: _value(name, key, text) for key, text in given.items()}
               for name in OPTIONS if (given := getattr(args, name, None))}
    return argparse.Namespace(**{**vars(args), **options})


def _value(name: str, key: str, text: str) -> object:
    try:
        return read_value(text)
    except (AssertionError, RecursionError) as error:  # of mmcv, the latter at [1,2],[3,4]
        raise InputError(f'--{name.replace("_", "-")} {key}={text}: the brackets do not match; '
                         'expected e.g. [1,2] or [[1,2],[3,4]]') from error


def read_value(text: str) -> object:
    """Returns what a text stands for by mmcv's rules, except that strings keep their spaces.

    mmcv 1.7 leaves out all spaces of a value first, so that '/data/my set' becomes '/data/myset'.
    """
    value = DictAction._parse_iterable(text)
    text = text.strip('\'"')
    if isinstance(value, str):
        return text
    if not isinstance(value, (list, tuple)):
        return value
    text = text.strip()
    if text[:1] + text[-1:] in ('()', '[]'):
        text = text[1:-1]
    parts = _split(text)
    if len(parts) != len(value):
        return value
    return type(value)(read_value(part.strip()) for part in parts)


def _split(text: str) -> list[str]:
    """Splits a text at the commas outside of brackets; one at the end is left out."""
    parts, depth = [''], dict.fromkeys('([', 0)
    for letter in text:
        if letter == ',' and not any(depth.values()):
            parts.append('')
            continue
        parts[-1] += letter
        for pair in ('()', '[]'):
            if letter in pair:
                depth[pair[0]] += 1 if letter == pair[0] else -1
    return parts if parts[-1].strip() else parts[:-1]
