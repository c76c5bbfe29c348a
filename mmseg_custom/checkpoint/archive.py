"""The zip that torch.save writes: its directory with bounds, and the checksums of its records.

A record's CRC-32 is in the directory, but neither torch.load nor a mapping of the file looks at it,
so that a flipped bit would go on as a weight. zlib sums 3 GB a second on a core (2026-11-26).
"""
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

CHUNK_BYTES = 8 << 20
_LOCAL_HEADER = struct.Struct('<4s22xHH')  # signature, lengths of name and of extra field
_IN_UTF8 = 0x800  # flag of a name
_ERRORS = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, OverflowError,
           struct.error, RuntimeError)


class DamagedFile(ValueError):
    """A file is damaged; the message is to be preceded by the file's name."""


class Archive:
    """The directory of a zip of torch.save, in a file or in a part of one.

    Args:
        file: Open file, as long as the archive is used.
        start: First byte of the zip.
        length: Bytes of the zip; default: to the end of the file.

    Raises:
        DamagedFile: If its directory is damaged, or has records that do not fit into the file.
    """

    def __init__(self, file: BinaryIO, start: int = 0, length: int | None = None):
        self._file, self._start = file, start
        self._length = file.seek(0, os.SEEK_END) - start if length is None else length
        try:
            with zipfile.ZipFile(_Part(file, start, self._length)) as directory:
                entries, self._end = directory.infolist(), directory.start_dir
        except _ERRORS as error:
            raise DamagedFile(f'is cut short, or its directory is damaged ({error})') from error
        self._entries = {self._name_of(entry): entry for entry in entries}
        if 'data.pkl' not in self._entries:
            raise DamagedFile('has no data.pkl: torch.save did not write it')
        self._has_sums = any(entry.CRC for entry in entries if entry.file_size)

    def read(self, name: str) -> bytes:
        """Reads a record, and verifies its checksum.

        Raises:
            DamagedFile: If the checksum does not match.
        """
        return b''.join(bytes(chunk) for chunk in self._checked(self._entries[name]))

    def check(self, tensors: bool = True) -> None:
        """Checks the checksums of all records; of those without tensors alone, if asked.

        A file that was saved without checksums (torch.serialization.set_crc32_options) passes.

        Raises:
            DamagedFile: Naming the first record whose checksum does not match.
        """
        for name, entry in self._entries.items():
            if tensors or not name.startswith('data/'):
                for _ in self._checked(entry):
                    pass

    def _name_of(self, entry: zipfile.ZipInfo) -> str:
        """Returns an entry's name without the folder, after a check of its bounds."""
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise DamagedFile(f'is damaged: {entry.filename!r} in it is compressed')
        if not 0 <= entry.header_offset <= entry.header_offset + entry.file_size <= self._end:
            raise DamagedFile(f'is cut short: {entry.filename!r} in it has {entry.file_size} '
                              f'bytes, and the file {self._length}')
        return entry.filename.partition('/')[2]

    def _checked(self, entry: zipfile.ZipInfo) -> Iterator[memoryview]:
        """Yields the content of an entry in chunks, and compares the checksum at the end."""
        self._file.seek(self._start + entry.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b'PK\x03\x04'):
            raise DamagedFile(f'is damaged: the header of {entry.filename!r} in it')
        _, name, extra = _LOCAL_HEADER.unpack(header)
        if self._file.read(name) != entry.orig_filename.encode(
                'utf-8' if entry.flag_bits & _IN_UTF8 else 'cp437'):
            raise DamagedFile(f'is damaged: the name of {entry.filename!r} in it is another one in '
                              'the header')
        self._file.seek(extra, os.SEEK_CUR)
        found = 0
        for chunk in chunks(self._file, entry.file_size):
            found = zlib.crc32(chunk, found)
            yield chunk
        if self._has_sums and found != entry.CRC:
            raise DamagedFile(f'is damaged: the CRC-32 of {entry.filename!r} in it is '
                              f'{found:08x}, and was {entry.CRC:08x} when it was written')


def chunks(file: BinaryIO, nbytes: int) -> Iterator[memoryview]:
    """Yields the next bytes of a file; each chunk is overwritten by the next one.

    Raises:
        DamagedFile: If the file ends before.
    """
    buffer = memoryview(bytearray(min(CHUNK_BYTES, nbytes)))
    while nbytes > 0:
        count = file.readinto(buffer[:min(nbytes, len(buffer))])  # type: ignore[attr-defined]
        if not count:
            raise DamagedFile('is cut short')
        yield buffer[:count]
        nbytes -= count


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: BinaryIO, start: int, length: int):
        self._whole, self._first, self._size, self._at = file, start, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f'negative position {base + offset}')
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size - self._at, 0)
        self._whole.seek(self._first + self._at)
        data = self._whole.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data
