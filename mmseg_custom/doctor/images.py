"""What the doctor reads of an image or a label: the header of every file, the pixels of some."""
import hashlib
import os

import numpy as np
from PIL import Image

from ..datasets import faults
from ..datasets.faults import Header, Problem

ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}
TAIL = 4096  # bytes at the end in which the mark is searched: some writers add a few behind it


def read_header(path: str, is_label: bool) -> Header | Problem:
    """Reads a file's header, and checks that the file is not cut short."""
    try:
        with open(path, 'rb') as file:
            header = faults.read_header(file, is_label)
            file.seek(-min(TAIL, os.path.getsize(path)), os.SEEK_END)
            if ENDS.get(header.format, b'') in file.read():
                return header
    except faults.UNREADABLE as error:
        return faults.undecodable(error)
    return faults.problem('undecodable', reason='it is cut short')


def decode(path: str) -> np.ndarray | Problem:
    """Reads the pixels as they are stored."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except faults.UNREADABLE as error:
        return faults.undecodable(error)


def digest(path: str) -> str:
    """Returns the SHA-1 of a file's content."""
    with open(path, 'rb') as file:
        return hashlib.sha1(file.read()).hexdigest()
