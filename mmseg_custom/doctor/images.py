"""What is wrong with one image file or one label file.

H W pixels. Headers are read of every file, pixels of as many as there is time for.
"""
import hashlib
import os
import unicodedata
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

IGNORED = 255
ORIENTATION = 0x0112  # the EXIF tag
ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}
TAIL = 4096  # bytes at the end that are searched for it: some writers add a few


@dataclass(frozen=True)
class Header:
    """What an image file says of itself; ``size`` is (W, H) of the stored pixels."""
    format: str
    mode: str
    size: tuple[int, int]
    orientation: int


@dataclass(frozen=True)
class Trouble:
    """A kind of fault in a file: message and way out."""
    message: str
    way_out: str


def read_header(path: str) -> Header | Trouble:
    """Opens a file without its pixels, and looks whether it goes on to its end."""
    try:
        if os.path.getsize(path) == 0:
            return Trouble('the file is empty (0 bytes)', 'fetch or write it again')
        with Image.open(path) as image:
            header = Header(image.format, image.mode, image.size,
                            image.getexif().get(ORIENTATION, 1))
    except UnidentifiedImageError:
        return Trouble('it is no image (expected JPEG or PNG)', 'replace the file')
    except PermissionError:
        return Trouble('it cannot be read: no permission', f'chmod +r {path}')
    except (OSError, SyntaxError, ValueError) as error:
        if 'truncated' in str(error).lower():
            return Trouble('it is cut short', 'fetch or write it again')
        return Trouble(f'it cannot be opened ({error})', 'replace the file')
    return _check_end(path, header) or header


def check_image(header: Header) -> Trouble | None:
    """Looks at the header of an image."""
    if header.mode in ('CMYK', 'YCCK'):
        return Trouble('it is CMYK (expected RGB): decoders disagree on its colours',
                       'convert it, e.g. `mogrify -colorspace sRGB FILE`')
    if header.mode.startswith(('I', 'F')):
        return Trouble('it has 16 or more bits a channel (expected 8)',
                       'convert it to 8 bits a channel')
    if header.orientation not in (0, 1):
        return Trouble(f'its EXIF orientation is {header.orientation}: it is turned as it is '
                       'decoded, its label is not',
                       'turn the pixels and drop the tag, e.g. `mogrify -auto-orient FILE`')
    return None


def check_label(header: Header) -> Trouble | None:
    """Looks at the header of a label."""
    if header.mode in ('RGB', 'RGBA', 'LA', 'CMYK', 'YCbCr'):
        return Trouble(f'it is a {header.mode} picture (expected one channel of class numbers)',
                       'turn its colours into class numbers: docs/custom_dataset.md')
    if header.mode.startswith(('I', 'F')):
        return Trouble('it has 16 or more bits a pixel (expected 8): values above 255 would wrap',
                       'write class numbers as 8-bit PNG')
    if header.format == 'JPEG':
        return Trouble('it is a JPEG, which blurs class numbers (expected PNG)',
                       'write it again as PNG from the source')
    return None


def decode(path: str) -> np.ndarray | Trouble:
    """Reads the pixels; unlike OpenCV, Pillow says when some are missing."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Trouble(f'it cannot be decoded ({error})', 'replace the file or remove the sample')


def check_values(labels: np.ndarray, num_classes: int, reduced: bool) -> Trouble | None:
    """Looks at the class numbers (H, W) as the file has them.

    Args:
        labels: As decoded.
        num_classes: K.
        reduced: Whether 0 is ignored and classes are 1..K (``reduce_zero_label``).
    """
    if labels.ndim != 2:
        return Trouble(f'it has the shape {labels.shape} (expected (H, W))', 'write one channel')
    counts = np.bincount(labels.reshape(-1).astype(np.uint8), minlength=256)
    top = num_classes if reduced else num_classes - 1
    wrong = counts[top + 1:IGNORED]
    if wrong.any():
        worst = top + 1 + int(np.flatnonzero(wrong)[-1])
        return Trouble(f'it holds {worst} (expected 0..{top}; {int(wrong.sum())} pixels are out of '
                       'range)', 'correct the file, or num_classes and the classes')
    if not counts[1 if reduced else 0:top + 1].any():
        return Trouble('no pixel of it has a class: all are ignored', 'label it or remove it')
    return None


def check_name(name: str) -> tuple[str, Trouble] | None:
    """('fault' or 'warning', what) for a name that does not travel well."""
    try:
        name.encode('utf-8')
    except UnicodeEncodeError:
        return 'fault', Trouble('its name is not UTF-8: logs, lists and archives lose it',
                                'rename it')
    if not name.isascii():
        form = '' if unicodedata.is_normalized('NFC', name) else ', and in decomposed form (NFD)'
        return 'warning', Trouble(f'its name is not ASCII{form}: it works here, and may not after '
                                  'an archive or under another locale', 'rename it to ASCII')
    return None


def digest(path: str) -> str:
    """Of a file's bytes."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha1').hexdigest() if hasattr(
            hashlib, 'file_digest') else hashlib.sha1(file.read()).hexdigest()


def _check_end(path: str, header: Header) -> Trouble | None:
    end = ENDS.get(header.format, b'')
    with open(path, 'rb') as file:
        file.seek(-min(TAIL, os.path.getsize(path)), os.SEEK_END)
        if end in file.read():
            return None
    return Trouble('it is cut short', 'fetch or write it again')
