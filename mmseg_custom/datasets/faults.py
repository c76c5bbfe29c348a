"""Faults and notes of image files and label files: the one list, and the checks behind it.

A fault breaks training or silently spoils it: loading refuses the file, `tools/prepare_data.py`
writes no manifest, `tools/doctor.py` fails. A note is about a file that loading deals with, and
that the user may want to know of. Loading decodes images with OpenCV (to RGB of 8 bits, turned as
their EXIF orientation says) and labels with Pillow (as they are stored, then cut to 8 bits).

H W pixels.
"""
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import mmcv
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import some_of
from .ground_truth import IGNORE_INDEX, class_numbers

FAULT, NOTE = 'fault', 'note'
# Kind -> (level, message behind the file's name, way out); the comments say why it is that level.
KINDS = {
    # OpenCV returns nothing and Pillow raises, also for a file that is cut short.
    'undecodable': (FAULT, 'cannot be decoded ({reason})', 'fetch it again or remove the sample'),
    # Pillow decodes it nevertheless, to wrong numbers.
    'damaged label': (FAULT, 'is damaged: the check sum (CRC-32) of its chunk {part} at byte '
                      '{start} is another', 'fetch it again or remove the sample'),
    # OpenCV cannot decode more than 16 bits to 8.
    '32-bit image': (FAULT, 'has {bits} bits a channel: expected 8', 'convert it to 8 bits'),
    # OpenCV keeps the upper 8 bits: right if all 16 are used, nearly black if only 12 are.
    '16-bit image': (NOTE, 'has 16 bits a channel, of which loading keeps the upper 8',
                     'convert it to 8 bits if it looks dark'),
    # OpenCV converts it without its colour profile: by 1.1 of 255 on average in a trial.
    'CMYK': (NOTE, 'is CMYK, which loading converts to RGB; colours may differ a little from those '
             'that other programs show', 'convert it to RGB if that matters'),
    # Where the sizes agree, the label was drawn on the turned image, or nobody can tell: 180
    # degrees, mirrored or square. Refusing it would refuse what labelling tools make.
    'EXIF': (NOTE, 'has the EXIF orientation {orientation}: loading turns or mirrors the image and '
             'not its label', 'look at both; remove the tag if the label is drawn on the image as '
             'stored (`exiftool -n -Orientation=1 FILE`)'),
    # The label was drawn on the stored pixels, which loading turns away from it.
    'turned from its label': (
        FAULT, 'has {image} pixels (height x width) after the turn that its EXIF orientation '
        '{orientation} asks for and loading makes, its label {label}',
        'store it without the tag (`exiftool -n -Orientation=1 FILE`)'),
    # Image and label would be cropped to different parts of the scene.
    'sizes differ': (FAULT, 'has {image} pixels (height x width), its label {label}',
                     'replace one of them or remove the sample'),
    # Three channels are passed on, and the loss fails on them.
    'label in colours': (FAULT, 'is {mode}, a picture in colours: expected one channel of class '
                         'numbers', 'convert it (docs/custom_dataset.md shows how)'),
    # Loading keeps the lower 8 bits: 256 becomes 0.
    '16-bit label': (FAULT, 'has {bits} bits a pixel: expected 8, of class numbers',
                     'write it again with 8 bits'),
    # Numbers between those of two classes appear on the border between them.
    'JPEG label': (FAULT, 'is a JPEG, which blurs class numbers: expected a PNG',
                   'write it again from its source'),
    # An index error in the loss; on a GPU it names neither file nor label.
    'label out of range': (FAULT, 'holds {values} ({pixels} pixels): expected 0..{last}, or '
                           f'{IGNORE_INDEX} where it is ignored',
                           'correct the file or remove the sample'),
    # The loss of its image is 0; the doctor finds it a fault where no label has a class.
    'nothing labelled': (NOTE, 'has no pixel of a class: all are ignored, nothing is learnt from '
                         'it', 'label it or remove the sample'),
    # Lists, logs and JSON files cannot hold the name.
    'name is not UTF-8': (FAULT, 'has a name that is not UTF-8', 'rename image and label'),
    'names beyond ASCII': (NOTE, 'has a name that is not ASCII: it works here, and may not in '
                           'archives or under another locale', 'rename image and label'),
}
PNG = b'\x89PNG\r\n\x1a\n'
COLOURED = ('RGB', 'RGBA', 'LA', 'PA', 'CMYK', 'YCbCr')  # Pillow's modes of several channels
UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError,
              Image.DecompressionBombError)


@dataclass(frozen=True)
class Problem:
    """A fault or a note of one file.

    Attributes:
        kind: Key of ``KINDS``.
        level: 'fault' or 'note'.
        message: Predicate of a sentence whose subject is the file: what was found and expected.
        way_out: Instruction to the user.
    """
    kind: str
    level: str
    message: str
    way_out: str

    def __str__(self) -> str:
        return f'{self.message}; {self.way_out}'


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    Attributes:
        format: Pillow's name of the format: 'JPEG'.
        mode: Pillow's name of the channels: 'RGB'.
        bits: Bits of a channel.
        stored_size: (H, W) of the stored pixels.
        orientation: EXIF orientation, 1..8; 1 means as stored, 5 and more swap height and width.
    """
    format: str
    mode: str
    bits: int
    stored_size: tuple[int, int]
    orientation: int

    @property
    def loaded_size(self) -> tuple[int, int]:
        """(H, W) of the image as loaded, turned as its EXIF orientation says."""
        return self.stored_size[::-1] if self.orientation >= 5 else self.stored_size


def problem(kind: str, **details) -> Problem:
    """Fills in the message of a kind of problem."""
    level, message, way_out = KINDS[kind]
    return Problem(kind, level, message.format(**details), way_out)


def undecodable(error: Exception) -> Problem:
    """Explains what Pillow raised, one of ``UNREADABLE``."""
    reason = ' '.join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = 'no known image format'
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    elif 'truncated' in reason.lower():
        reason = f'it is cut short: {reason}'
    return problem('undecodable', reason=reason)


def read_header(file: BinaryIO, is_label: bool = False) -> Header:
    """Reads a file's header.

    Args:
        file: File that is open for reading.
        is_label: Whether the EXIF orientation is left out, which loading ignores in a label. Pillow
            decodes all of a PNG to find it.

    Raises:
        OSError, SyntaxError, ValueError: One of ``UNREADABLE``, if it is no image.
    """
    start = file.read(26)
    if not start:
        raise ValueError('the file is empty')
    file.seek(0)
    with Image.open(file) as image:
        bits = start[24] if image.format == 'PNG' else (
            16 if image.mode.startswith('I;16') else 32 if image.mode in 'IF' else 8)
        orientation = 1 if is_label else image.getexif().get(ExifTags.Base.Orientation)
        return Header(image.format, image.mode, bits, (image.height, image.width),
                      orientation if orientation in range(1, 9) else 1)


def check_image(header: Header) -> list[Problem]:
    """Finds the problems that the header of an image shows."""
    found = []
    if header.bits > 8:
        found.append(problem('16-bit image' if header.bits == 16 else '32-bit image',
                             bits=header.bits))
    if header.mode == 'CMYK':
        found.append(problem('CMYK'))
    return found


def check_decoding(path: str, is_label: bool = False) -> Problem | None:
    """Decodes a file as loading does, and says why it fails."""
    flag, backend = ('unchanged', 'pillow') if is_label else ('color', 'cv2')
    try:
        if mmcv.imread(path, flag, backend=backend) is not None:
            return None
    except Exception:  # whatever the decoder raises, the header or Pillow says what is wrong
        pass
    try:
        with open(path, 'rb') as file:
            found = [] if is_label else check_image(read_header(file))
            with Image.open(file) as image:
                image.load()
    except UNREADABLE as error:
        return undecodable(error)
    return next((one for one in found if one.level == FAULT),
                problem('undecodable', reason=f'by {backend}'))


def check_label(header: Header) -> list[Problem]:
    """Finds the fault that the header of a label shows, if any."""
    if header.mode in COLOURED:
        return [problem('label in colours', mode=header.mode)]
    if header.bits > 8:
        return [problem('16-bit label', bits=header.bits)]
    return [problem('JPEG label')] if header.format == 'JPEG' else []


def check_png(file: BinaryIO) -> list[Problem]:
    """Compares the check sums of a PNG, which Pillow leaves out for the pixels.

    Args:
        file: File that is open for reading, of any format.
    """
    file.seek(0)
    data = file.read()
    start = len(PNG)
    while data.startswith(PNG) and start < len(data):
        length, part = struct.unpack_from('>I4s', data.ljust(start + 8, b'\0'), start)
        end = start + 8 + length
        if data[end:end + 4] != struct.pack('>I', zlib.crc32(data[start + 4:end])):
            return [problem('damaged label', part=repr(part)[1:], start=start)]
        if part == b'IEND':
            break
        start = end + 4
    return []


def check_loaded_label(labels: np.ndarray, path: str, num_classes: int, shift: int = 0,
                       as_stored: bool = True, ignore_index: int = IGNORE_INDEX,
                       of_file: int | None = None) -> Problem | None:
    """Finds the first fault of a label as loaded.

    Args:
        labels: Label map (H, W): 0..K-1 or the ignore index.
        path: File that it was loaded from; one that is not on the disk is not read.
        num_classes: Number of classes K.
        shift: Number that loading subtracted; messages hold the numbers of the file.
        as_stored: Whether loading takes the numbers of the file as they are, so that the file's
            header is judged too. Otherwise it may make class numbers of colours.
        ignore_index: Further label of pixels that are ignored.
        of_file: Number of classes that the file may hold, for the message; default: K.
    """
    found = _check_label_file(path) if as_stored or labels.ndim != 2 else []
    if not found and labels.ndim != 2:
        found = [problem('label in colours', mode=f'of the shape {labels.shape}')]
    return found[0] if found else check_range(labels, num_classes, shift, ignore_index, of_file)


def _check_label_file(path: str) -> list[Problem]:
    """Finds the fault that a label's file shows by itself; none if it cannot be read."""
    try:
        with open(path, 'rb') as file:
            return check_label(read_header(file, is_label=True)) or check_png(file)
    except UNREADABLE:
        return []


def check_range(labels: np.ndarray, num_classes: int, shift: int = 0,
                ignore_index: int = IGNORE_INDEX, of_file: int | None = None) -> Problem | None:
    """Compares a label map (H, W) with the number of classes; see :func:`check_loaded_label`."""
    wrong = labels[(labels >= num_classes) & (labels != IGNORE_INDEX) & (labels != ignore_index)]
    if not wrong.size:
        return None
    values = (np.unique(wrong).astype(int) + shift).tolist()
    text = some_of(values, shown=5)
    return problem('label out of range', values=text, pixels=wrong.size,
                   last=(of_file or num_classes) - 1 + shift)


def check_values(labels: np.ndarray, last_label: int, zero_is_ignored: bool,
                 label_map: Mapping[int, int] | None = None,
                 ignore_index: int = IGNORE_INDEX) -> Problem | None:
    """Finds a fault or a note in the numbers of a label file.

    Args:
        labels: Label map (H, W) as the file has it.
        last_label: Number of the last class in the file.
        zero_is_ignored: Whether the first class is 1, and 0 is ignored (``reduce_zero_label``).
        label_map: Numbers that take the place of some, where classes are selected.
        ignore_index: Further label of pixels that are ignored.
    """
    found = check_range(labels, last_label + 1, ignore_index=ignore_index)
    if found is not None:
        return found
    classes = class_numbers(labels.astype(np.uint8), zero_is_ignored, label_map)
    ignored = (classes == IGNORE_INDEX) | (classes == ignore_index)
    return problem('nothing labelled') if ignored.all() else None


def check_pair(image: tuple[int, int], label: tuple[int, int], orientation: int) -> Problem | None:
    """Compares an image with its label.

    Args:
        image: (H, W) of the image as loaded, turned as its EXIF orientation says.
        label: (H, W) of the label.
        orientation: EXIF orientation of the image, 1..8.
    """
    if tuple(image) == tuple(label):
        return None if orientation == 1 else problem('EXIF', orientation=orientation)
    turned = orientation >= 5 and tuple(image) == tuple(label)[::-1]
    return problem('turned from its label' if turned else 'sizes differ', orientation=orientation,
                   image='{} x {}'.format(*image), label='{} x {}'.format(*label))


def check_name(name: str) -> Problem | None:
    """Finds what is wrong with a file's name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return problem('name is not UTF-8')
    return None if name.isascii() else problem('names beyond ASCII')
