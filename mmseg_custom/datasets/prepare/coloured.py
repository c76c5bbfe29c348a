"""Labels that are pictures in colours -> labels of class numbers."""
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ...files import atomic_write
from ..description import Colour, Description
from ..workers import in_processes
from .samples import IGNORED, UNREADABLE


@dataclass(frozen=True)
class Picture:
    """A label to make.

    Attributes:
        source: The label in colours.
        target: Where the numbers belong.
        numbers: Colour -> number.
    """
    source: Path
    target: Path
    numbers: Mapping[Colour, int]


def make_labels(description: Description, workers: int) -> int:
    """Makes the labels that are missing or older than their picture.

    Returns:
        Their number.

    Raises:
        InputError: If a picture has a colour of no class, or cannot be read.
    """
    numbers = {colour: i for i, colour in enumerate(description.classes.values())}
    numbers.update((colour, IGNORED) for colour in description.ignored)
    jobs = []
    for part in description.parts.values():
        if part.coloured is None:
            continue
        for source in sorted(part.coloured.rglob(f'*{description.label_suffix}')):
            target = part.labels / source.relative_to(part.coloured)
            if not target.is_file() or target.stat().st_mtime_ns < source.stat().st_mtime_ns:
                jobs.append(Picture(source, target, numbers))
    return sum(in_processes(make_label, jobs, workers, 'colours -> numbers')) if jobs else 0


def make_label(picture: Picture) -> int:
    """Makes one.

    Raises:
        InputError: If the picture has a colour of no class, or cannot be read.
    """
    try:
        with Image.open(picture.source) as image:
            pixels = np.array(image.convert('RGB')).astype(np.int64)  # (H, W, 3)
    except UNREADABLE as error:
        raise InputError(f'label {picture.source} cannot be decoded ({error}): replace '
                         'it') from error
    colours, places = np.unique(pixels @ (65536, 256, 1), return_inverse=True)
    found = []
    for code in colours.tolist():
        colour = (code >> 16, code >> 8 & 255, code & 255)
        if colour not in picture.numbers:
            count = int((colours[places] == code).sum())
            raise InputError(f'label {picture.source} has {count} pixels in the colour '
                             f'{list(colour)}, which is of no class: add it to the classes, or to '
                             '`ignored`; a JPEG blurs colours and cannot be used')
        found.append(picture.numbers[colour])
    labels = np.array(found, np.uint8)[places].reshape(pixels.shape[:2])
    file = io.BytesIO()
    Image.fromarray(labels).save(file, 'PNG')
    picture.target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(picture.target, file.getvalue())
    return 1
