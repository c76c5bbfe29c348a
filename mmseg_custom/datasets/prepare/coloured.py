"""Labels in colours -> labels of class numbers."""
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ...files import atomic_write
from ..description import Colour, Description
from ..faults import UNREADABLE, undecodable
from ..ground_truth import IGNORE_INDEX
from ..workers import convert_all


@dataclass(frozen=True)
class ColouredLabel:
    """A label to convert.

    Attributes:
        source: Path of the label in colours.
        target: Path of the label to write.
        numbers: Colour -> class number.
    """
    source: Path
    target: Path
    numbers: Mapping[Colour, int]


def make_labels(description: Description, workers: int) -> int:
    """Converts the labels that are missing or older than their source.

    Returns:
        The number of labels that were written.

    Raises:
        InputError: If a source has a colour of no class, or cannot be decoded; the others are
            converted.
    """
    numbers = {colour: i for i, colour in enumerate(description.classes.values())}
    numbers.update((colour, IGNORE_INDEX) for colour in description.ignored)
    jobs = []
    for part in description.parts.values():
        if part.coloured is None or part.labels is None:
            continue
        for source in sorted(part.coloured.rglob(f'*{description.label_suffix}')):
            target = part.labels / source.relative_to(part.coloured)
            if not target.is_file() or target.stat().st_mtime_ns < source.stat().st_mtime_ns:
                jobs.append(ColouredLabel(source, target, numbers))
    return convert_all(make_label, jobs, workers, 'colours -> numbers')


def make_label(label: ColouredLabel) -> None:
    """Converts a label.

    Raises:
        InputError: If the source has a colour of no class, or cannot be decoded.
    """
    try:
        with Image.open(label.source) as image:
            pixels = np.array(image.convert('RGB')).astype(np.int64)  # (H, W, 3)
    except UNREADABLE as error:
        raise InputError(f'label {label.source} {undecodable(error)}') from error
    colours, indices = np.unique(pixels @ (65536, 256, 1), return_inverse=True)
    found = []
    for code in colours.tolist():
        colour = (code >> 16, code >> 8 & 255, code & 255)
        if colour not in label.numbers:
            count = int((colours[indices] == code).sum())
            raise InputError(f'label {label.source} has {count} pixels in the colour '
                             f'{list(colour)}, which is of no class: add it to the classes, or to '
                             '`ignored`; a JPEG blurs colours and cannot be used')
        found.append(label.numbers[colour])
    labels = np.array(found, np.uint8)[indices].reshape(pixels.shape[:2])
    file = io.BytesIO()
    Image.fromarray(labels).save(file, 'PNG')
    label.target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(label.target, file.getvalue())
