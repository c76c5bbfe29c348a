"""The YAML file that describes a data set of one's own: docs/custom_dataset.md explains one.

    classes:                  names and colours (red, green, blue); label files hold 0 for the
      road: [128, 64, 128]    first, 1 for the second ..., and 255 for what is ignored
      car: [0, 0, 142]
    train:                    folders, relative to the YAML file
      images: images/train
      labels: labels/train
    val: ...                  and test, whose labels may be missing

Optional: `image_suffix` (.jpg; `any` for all usual ones, in any case), `label_suffix` (.png), and
for labels in colours `coloured` beside `labels` and `ignored`, the colours of what is ignored.
"""
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..missing import look_around
from ..schema import Mismatch, integer, line, mismatch, path_text, record, shorten, validate
from .ground_truth import IGNORE_INDEX
from .listing import ANY

PARTS = ('train', 'val', 'test')
MOST_CLASSES = IGNORE_INDEX  # labels are 0..254
MOST_CHARACTERS = 1_000_000  # of a file; 255 classes take 10,000
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """Folders of a split, as paths that can be opened.

    Attributes:
        images: Folder of the images.
        labels: Folder of the labels; None where there are none.
        coloured: Folder of labels in colours, from which the labels are made; None where there are
            none.
    """
    images: Path
    labels: Path | None = None
    coloured: Path | None = None


@dataclass(frozen=True)
class Description:
    """Content of a description.

    Attributes:
        path: Path of the file.
        classes: Name -> colour, in the order of the numbers in the labels.
        parts: 'train', 'val', 'test' -> folders.
        ignored: Colours of ignored pixels in labels in colours.
        image_suffix: Ending of image names, or 'any'.
        label_suffix: Ending of label names.
    """
    path: Path
    classes: dict[str, Colour]
    parts: dict[str, Part]
    ignored: list[Colour] = field(default_factory=list)
    image_suffix: str = '.jpg'
    label_suffix: str = '.png'

    def part(self, name: str) -> Part:
        """Returns the folders of a split.

        Raises:
            InputError: If the file does not name it.
        """
        if name not in self.parts:
            raise InputError(f'{self.path} has no {name!r}: it describes {", ".join(self.parts)}')
        return self.parts[name]


def read_description(path: str | Path) -> Description:
    """Reads a description.

    Raises:
        InputError: If the file does not exist, is no YAML, or has a key or value that is wrong.
    """
    path = Path(path)
    content = _parse(path)
    if not isinstance(content, dict):
        raise InputError(f'{path}: expected the keys classes, train and val')
    validate({**content, 'classes': content.get('classes')}, _DESCRIPTION, str(path))
    if not {'train', 'val'} & content.keys():
        raise InputError(f'{path}: expected train, val or both')
    ignored = content.get('ignored') or []
    if ignored and not isinstance(ignored[0], list):
        ignored = [ignored]  # a single one
    return Description(
        path, {name: _as_colour(colour) for name, colour in content['classes'].items()},
        {name: Part(**{key: path.parent / folder for key, folder in content[name].items()})
         for name in PARTS if name in content},
        [_as_colour(colour) for colour in ignored],
        **{key: content[key] for key in ('image_suffix', 'label_suffix') if key in content})


def _parse(path: Path) -> Any:
    """Parses the file.

    Raises:
        InputError: If it is missing or no YAML, or a key is there twice in one mapping.
    """
    try:
        with open(path, encoding='utf-8-sig') as file:
            text = file.read(MOST_CHARACTERS + 1)
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f'it has more than {MOST_CHARACTERS:,} characters')
        return yaml.load(text, _Loader)
    except FileNotFoundError as error:
        raise InputError(f'{path} does not exist' + look_around(
            str(path), 'expected the YAML file that describes a data set '
            '(docs/custom_dataset.md)')) from error
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}; expected the YAML file that describes a data '
                         'set (docs/custom_dataset.md)') from error
    except _Refused as error:
        raise InputError(f'{path}, line {error.problem_mark.line + 1}: {error.problem}') from error
    except UNPARSABLE as error:
        raise InputError(f'{path} is no YAML: {" ".join(str(error).split())[:300]}') from error


# What PyYAML raises: for scalars that are no number or date of the kind that they look like or are
# tagged as, whatever Python does.
UNPARSABLE = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError,
              RecursionError)


class _Refused(yaml.constructor.ConstructorError):
    """YAML that would be read as something else than what is written."""


class _Loader(yaml.SafeLoader):
    """YAML without code, without keys that are there twice, and without merged mappings.

    Of two equal keys YAML keeps the last. Merged mappings (`<<`) are not needed here, and a few
    nested ones fill the memory.
    """

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses merged mappings, and a key that is there twice."""
        found: set[Hashable] = set()
        if isinstance(node, yaml.MappingNode):
            for part, _ in node.value:
                if part.tag == 'tag:yaml.org,2002:merge':
                    raise _Refused(None, None, '<< is not read: write the keys', part.start_mark)
                key = self.construct_object(part, deep=True)
                if isinstance(key, Hashable) and key in found:
                    raise _Refused(None, None, f'{shorten(key)} is there twice', part.start_mark)
                found.add(key if isinstance(key, Hashable) else id(part))
        return super().construct_mapping(node, deep)


def _classes(content: Any, place: str) -> None:
    if not isinstance(content, dict) or not 2 <= len(content) <= MOST_CLASSES:
        raise Mismatch(f'{place}: expected 2 to {MOST_CLASSES} names with their colours, such as '
                       'road: [128, 64, 128]')
    names: dict[Colour, str] = {}
    for name, value in content.items():
        if not isinstance(name, str):
            raise Mismatch(f'{place}: {shorten(name)} is no name to YAML: put it into quotes')
        line(name, place)
        _colour(value, f'{place}.{name}')
        other = names.setdefault(_as_colour(value), name)
        if other != name:
            raise Mismatch(f'{place}: {other} and {name} have the same colour')


def _colour(value: Any, place: str) -> None:
    try:
        for number in value if isinstance(value, list) and len(value) == 3 else [None]:
            integer(0, 255)(number, place)
    except Mismatch:
        raise mismatch(place, value, 'a colour of three numbers from 0 to 255, such as '
                                     '[128, 64, 128]') from None


def _ignored(value: Any, place: str) -> None:
    if value is None or value == []:
        return
    if not isinstance(value, list):
        raise mismatch(place, value, 'a list of colours')
    for one in value if isinstance(value[0], list) else [value]:
        _colour(one, place)


def _suffix(value: Any, place: str) -> None:
    if not isinstance(value, str) or '.' not in value or '/' in value or not value.isprintable():
        raise mismatch(place, value, 'an ending such as .png')


def _image_suffix(value: Any, place: str) -> None:
    if value != ANY:
        try:
            _suffix(value, place)
        except Mismatch:
            raise mismatch(place, value, f'an ending such as .png, or {ANY}') from None


def _folder(value: Any, place: str) -> None:
    try:
        path_text(value, place)
        line(value, place)
    except Mismatch:
        raise mismatch(place, value, 'a folder') from None


def _as_colour(value: list[int]) -> Colour:
    red, green, blue = value
    return red, green, blue


def _part(value: Any, place: str) -> None:
    labels = dict(labels=_folder)
    record(dict(images=_folder, **({} if place == 'test' else labels)),
           dict(coloured=_folder, **labels), others=None)(value, place)
    if 'coloured' in value and 'labels' not in value:
        raise Mismatch(f'{place}: coloured needs labels, the folder to make them in')


_DESCRIPTION = record(dict(classes=_classes), dict(
    ignored=_ignored, image_suffix=_image_suffix, label_suffix=_suffix,
    **dict.fromkeys(PARTS, _part)), others=None)
