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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from .ground_truth import IGNORE_INDEX
from .listing import ANY

PARTS = ('train', 'val', 'test')
MOST_CLASSES = IGNORE_INDEX  # labels are 0..254
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
    try:
        text = path.read_text(encoding='utf-8')
        content = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}; expected the YAML file that describes a data '
                         'set (docs/custom_dataset.md)') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f'{path} is no YAML: {" ".join(str(error).split())}') from error
    return _Reader(path, text).description(content)


class _Reader:
    """Checks the content of a file, with the file's name in every message."""

    def __init__(self, path: Path, text: str):
        self.path, self.text = path, text

    def expect(self, condition: bool, message: str) -> None:
        if not condition:
            raise InputError(f'{self.path}: {message}')

    def description(self, content: Any) -> Description:
        self.expect(isinstance(content, dict), 'expected the keys classes, train and val')
        known = {'classes', 'ignored', 'image_suffix', 'label_suffix', *PARTS}
        for key in content:
            self.expect(key in known, f'{key!r} is not known: expected {", ".join(sorted(known))}')
        self.expect('train' in content or 'val' in content, 'expected train, val or both')
        ignored = content.get('ignored') or []
        self.expect(isinstance(ignored, list), f'ignored: {ignored!r} is no list of colours')
        if ignored and not isinstance(ignored[0], list):
            ignored = [ignored]  # a single one
        suffixes = {key: content[key] for key in ('image_suffix', 'label_suffix') if key in content}
        for key, value in suffixes.items():
            self.expect(isinstance(value, str) and ('.' in value or (key, value) == (
                'image_suffix', ANY)), f'{key}: {value!r}, expected an ending such as .png'
                + (f', or {ANY}' if key == 'image_suffix' else ''))
        return Description(
            self.path, self.classes(content.get('classes')),
            {name: self.part(name, content[name]) for name in PARTS if name in content},
            [self.colour('ignored', value) for value in ignored], **suffixes)

    def classes(self, content: Any) -> dict[str, Colour]:
        self.expect(isinstance(content, dict) and 2 <= len(content) <= MOST_CLASSES,
                    f'classes: expected 2 to {MOST_CLASSES} names with their colours, such as '
                    'road: [128, 64, 128]')
        for name in content:
            self.expect(isinstance(name, str),
                        f'classes: {name!r} is no name to YAML: put it into quotes')
        [node] = [value for key, value in yaml.compose(self.text).value if key.value == 'classes']
        names = [key.value for key, _ in node.value]
        twice = sorted({name for name in names if names.count(name) > 1})
        self.expect(not twice, f'classes: {", ".join(twice)} is there twice')
        classes = {name: self.colour(name, value) for name, value in content.items()}
        by_colour: dict[Colour, str] = {}
        for name, colour in classes.items():
            other = by_colour.setdefault(colour, name)
            self.expect(other == name, f'classes: {other} and {name} have the same colour')
        return classes

    def colour(self, name: str, value: Any) -> Colour:
        numbers = isinstance(value, list) and len(value) == 3 and all(
            isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in value)
        self.expect(numbers, f'{name}: {value!r}, expected a colour of three numbers from 0 to '
                    '255, such as [128, 64, 128]')
        return tuple(value)

    def part(self, name: str, content: Any) -> Part:
        needed = {'images'} if name == 'test' else {'images', 'labels'}
        self.expect(isinstance(content, dict) and needed <= set(content)
                    and set(content) <= {'images', 'labels', 'coloured'},
                    f'{name}: {content!r}, expected folders of {" and ".join(sorted(needed))}')
        for key, value in content.items():
            self.expect(isinstance(value, str) and bool(value),
                        f'{name}.{key}: {value!r}, expected a folder')
        self.expect('labels' in content or 'coloured' not in content,
                    f'{name}: coloured needs labels, the folder to make them in')
        return Part(**{key: self.path.parent / value for key, value in content.items()})
