"""One sample: an image and its label, as training will read them.

H W pixels. A fault is what would break or silently spoil training; a note is what loading deals
with, and the user may want to know. Images are decoded as `LoadImageFromFile` decodes them: to
8-bit RGB, turned as their EXIF tag says. Labels are read as they are.
"""
import hashlib
import io
import warnings
from dataclasses import dataclass, field

import mmcv
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

IGNORED = 255
TURNS = {2: 'mirrors it', 3: 'turns it by 180 degrees', 4: 'turns it upside down and mirrors it'}
UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError,
              Image.DecompressionBombError, Image.DecompressionBombWarning)
Size = tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """Where a sample is.

    Attributes:
        image: Path of the image.
        label: Path of the label.
        last_label: Largest label of a class; 255 is always allowed.
        known: SHA-256 of both files when they were last found without fault; empty before.
    """
    image: str
    label: str
    last_label: int
    known: tuple[str, str] | tuple = ()


@dataclass
class Finding:
    """What was found in a sample.

    Attributes:
        files: Size in bytes and SHA-256 of image and label.
        faults: One line each.
        notes: Kind of note -> what it is about.
        checked: False if both files are what they were when they were last found without fault.
    """
    files: list[tuple[int, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    checked: bool = True


def inspect(sample: Sample) -> Finding:
    """Decodes a sample and says what is wrong with it."""
    found = Finding()
    contents = []
    for kind, path in (('image', sample.image), ('label', sample.label)):
        try:
            with open(path, 'rb') as file:
                data = file.read()
        except OSError as error:
            found.faults.append(f'{kind} {path} cannot be read ({error.strerror}): restore it')
            return found
        contents.append(data)
        found.files.append((len(data), hashlib.sha256(data).hexdigest()))
    if sample.known == tuple(digest for _, digest in found.files):
        found.checked = False
        return found
    with warnings.catch_warnings():
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        size, raw = _check_image(sample.image, contents[0], found)
        label = _check_label(sample, contents[1], found)
    if size and label and size != label:
        found.faults.append(_sizes_differ(sample, size, raw, label))
    return found


def _check_image(path: str, data: bytes, found: Finding) -> tuple[Size | None, Size | None]:
    """The size (H, W) that loading gives an image, and the one that is stored."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            raw, mode = (image.height, image.width), image.mode
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            # To an eighth where it is a JPEG: all of the file is read, little is computed.
            image.draft('L', (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
        if mode == 'CMYK':
            found.notes['CMYK'] = path
            if mmcv.imfrombytes(data, 'color') is None:
                raise ValueError('CMYK')
    except UNREADABLE as error:
        found.faults.append(f'image {path} cannot be decoded ({_words(error, path)}): fetch it '
                            'again or remove the sample')
        return None, None
    if mode.startswith('I;16'):
        found.notes['16-bit image'] = path
    if orientation in TURNS:
        found.notes['EXIF'] = f'{path}: its EXIF tag {TURNS[orientation]}'
    elif orientation in range(5, 9):
        found.notes['EXIF'] = f'{path}: its EXIF tag turns it by a quarter'
        return raw[::-1], raw
    return raw, raw


def _check_label(sample: Sample, data: bytes, found: Finding) -> Size | None:
    """The size (H, W) of a label."""
    path, last = sample.label, sample.last_label
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, size = image.mode, (image.height, image.width)
            labels = np.array(image)
    except UNREADABLE as error:
        found.faults.append(f'label {path} cannot be decoded ({_words(error, path)}): fetch it '
                            'again or remove the sample')
        return None
    if labels.ndim != 2:
        found.faults.append(f'label {path} is {mode}, a picture in colours: expected one channel '
                            'of class numbers; convert it (docs/custom_dataset.md shows how)')
    elif mode.startswith('I'):
        found.faults.append(f'label {path} has 16 bits a pixel or more: expected 8, of class '
                            'numbers; loading would cut them off; convert it')
    else:
        _check_range(path, labels, last, found)
    return size


def _check_range(path: str, labels: np.ndarray, last: int, found: Finding) -> None:
    counts = np.bincount(labels.astype(np.uint8).ravel(), minlength=IGNORED + 1)
    wrong = np.flatnonzero(counts[last + 1:IGNORED]) + last + 1
    if len(wrong):
        values = ', '.join(map(str, wrong[:5])) + (', ...' if len(wrong) > 5 else '')
        pixels = int(counts[last + 1:IGNORED].sum())
        found.faults.append(f'label {path} holds {values} ({pixels} pixels): expected 0..{last}, '
                            f'or {IGNORED} for what is ignored; correct it or remove the sample')
    elif counts[IGNORED] == labels.size:
        found.notes['nothing labelled'] = path


def _sizes_differ(sample: Sample, size: Size, raw: Size, label: Size) -> str:
    words = f'{size[0]} x {size[1]} pixels (height x width)'
    if raw == label and raw != size:
        return (f'image {sample.image} has {words} after the turn that its EXIF tag asks for and '
                f'loading makes, its label {label[0]} x {label[1]}: store it without the tag '
                f'(`exiftool -n -Orientation=1 {sample.image}`)')
    return (f'image {sample.image} has {words}, its label {label[0]} x {label[1]}: replace one of '
            'them or remove the sample')


def _words(error: Exception, path: str) -> str:
    text = str(error) if 'BytesIO' not in str(error) else 'no known image format'
    return text.replace('\n', ' ') or type(error).__name__
