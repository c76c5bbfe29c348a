"""One sample: an image and its label, decoded and compared as training will read them."""
import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .. import faults
from ..faults import FAULT, Header, Problem, undecodable


@dataclass(frozen=True)
class SampleFiles:
    """An image and its label.

    Attributes:
        image: Path of the image.
        label: Path of the label.
        last_label: Number of the last class in label files.
        zero_is_ignored: Whether the first class is 1, and 0 is ignored.
        known: SHA-256 of both files when they were last found without fault; empty before.
    """
    image: str
    label: str
    last_label: int
    zero_is_ignored: bool = False
    known: tuple[str, str] | tuple = ()


@dataclass
class SampleReport:
    """What was found in a sample.

    Attributes:
        files: Size in bytes and SHA-256 of image and label.
        faults: Faults, one line each.
        notes: Kind of note -> the note, in one line that begins with the file's path.
        checked: False if both files are what they were when they were last found without fault.
    """
    files: list[tuple[int, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    checked: bool = True

    def add(self, what: str, path: str, problem: Problem | None) -> None:
        """Adds what was found in a file.

        Args:
            what: 'image' or 'label'.
            path: Path of the file.
            problem: A fault or a note; None adds nothing.
        """
        if problem is None:
            return
        if problem.level == FAULT:
            self.faults.append(f'{what} {path} {problem}')
        else:
            self.notes[problem.kind] = f'{path} {problem.message}'


def inspect(sample: SampleFiles) -> SampleReport:
    """Decodes a sample and reports its faults and notes."""
    report = SampleReport()
    contents = []
    for what, path in (('image', sample.image), ('label', sample.label)):
        try:
            with open(path, 'rb') as file:
                data = file.read()
        except OSError as error:
            report.add(what, path, undecodable(error))
            return report
        contents.append(io.BytesIO(data))
        report.files.append((len(data), hashlib.sha256(data).hexdigest()))
    if sample.known == tuple(digest for _, digest in report.files):
        report.checked = False
        return report
    image = _check_image(sample.image, contents[0], report)
    label = _check_label(sample, contents[1], report)
    if image and label:
        report.add('image', sample.image, faults.check_pair(
            image.loaded_size, label.stored_size, image.orientation))
    return report


def _check_image(path: str, file: io.BytesIO, report: SampleReport) -> Header | None:
    """Checks an image; returns its header, or None if it cannot be decoded."""
    try:
        header = faults.read_header(file)
        with Image.open(file) as image:
            # To an eighth where it is a JPEG: all of the file is read, little is computed.
            image.draft('L', (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
    except faults.UNREADABLE as error:
        report.add('image', path, undecodable(error))
        return None
    if header.mode == 'CMYK':  # OpenCV does not decode every kind of it
        report.add('image', path, faults.check_decoding(path))
    for problem in faults.check_image(header):
        report.add('image', path, problem)
    return header


def _check_label(sample: SampleFiles, file: io.BytesIO, report: SampleReport) -> Header | None:
    """Checks a label; returns its header, or None if it cannot be decoded."""
    try:
        header = faults.read_header(file, is_label=True)
        with Image.open(file) as image:
            labels = np.array(image)
    except faults.UNREADABLE as error:
        report.add('label', sample.label, undecodable(error))
        return None
    found = faults.check_label(header) or faults.check_png(file)
    report.add('label', sample.label, found[0] if found else faults.check_values(
        labels, sample.last_label, sample.zero_is_ignored))
    return header
