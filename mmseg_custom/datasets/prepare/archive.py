"""Archives: zip, tar, a folder or a single file, checked before anything is written.

An archive is refused as a whole if it is cut short, of another kind, or has members that would land
outside the target.
"""
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ...errors import InputError
from ...missing import look_around

HEADS = ((b'PK\x03\x04', 'zip'), (b'PK\x05\x06', 'zip'), (b'\x1f\x8b', 'tar'), (b'BZh', 'tar'),
         (b'\xfd7zXZ', 'tar'))
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1


@dataclass(frozen=True)
class Member:
    """A file in a source.

    Attributes:
        name: Path in the source, with '/' between folders.
        bytes: Size in bytes.
        crc: CRC-32 of the content; None where the archive does not hold it.
        handle: Object by which the source finds the member.
    """
    name: str
    bytes: int
    crc: int | None
    handle: Any


class Source:
    """A zip, a tar, a folder or a file.

    Attributes:
        members: Files in the source.
        errors: Exceptions that reading a damaged source raises; see :meth:`damaged`.
    """
    errors: tuple[type[Exception], ...] = ()

    def __init__(self, path: str):
        self.path = path
        self.members: list[Member] = []

    def read(self, wanted: set[str]) -> Iterator[tuple[Member, IO[bytes]]]:
        """Opens the wanted members, one after the other, in the order of the source."""
        raise NotImplementedError

    def error(self, what: str) -> InputError:
        """Makes an error about this source."""
        return InputError(f'archive {self.path} {what}')

    def damaged(self, error: Exception, where: str = '') -> InputError:
        """Makes an error of one of ``errors``."""
        size = os.path.getsize(self.path)
        return self.error(f'is cut short or damaged{where} ({size:,} bytes; {error}): '
                          'continue the download (`wget -c`) or fetch it again')


def open_source(path: str) -> Source:
    """Lists what is in an archive, a folder or a file.

    Raises:
        InputError: If it is none of them, cut short, or has members that climb out of a folder.
    """
    if os.path.isdir(path):
        return FolderSource(path)
    if not os.path.exists(path):
        raise InputError(f'{path} does not exist' + look_around(
            path, 'expected an archive, or the folder that it was unpacked to'))
    if not os.path.isfile(path):  # reading a pipe would block
        raise InputError(f'{path} is neither a file nor a folder: expected an archive, or the '
                         'folder that it was unpacked to')
    if path.endswith('.json'):
        return FileSource(path)
    kind = _kind(path)
    return ZipSource(path) if kind == 'zip' else TarSource(path)


def _kind(path: str) -> str:
    with open(path, 'rb') as file:
        head = file.read(512)
    for start, kind in HEADS:
        if head.startswith(start):
            return kind
    if head[257:262] == b'ustar':
        return 'tar'
    start = head.lstrip().lower()
    if not head:
        found = 'is empty'
    elif start.startswith((b'<!doctype', b'<html', b'<?xml')):
        found = 'is a web page, most likely an error message of the server'
    elif not head.strip(b'\0'):
        found = 'starts with zeros: the download has not filled it'
    else:
        found = f'is no archive: it starts with {head[:8]!r}'
    raise InputError(f'{path} {found}; expected a zip, a tar or a folder; fetch it again')


def check_name(name: str, source: Source) -> str:
    """Normalizes a member's name.

    Raises:
        InputError: If it would land outside the folder that the archive is unpacked to.
    """
    parts = PurePosixPath(name.replace('\\', '/')).parts
    drive = bool(parts) and len(parts[0]) == 2 and parts[0][1] == ':'
    if name.startswith(('/', '\\')) or '..' in parts or '\0' in name or drive:
        raise source.error(f'holds {name!r}, which would land outside the target: nothing was '
                           'unpacked; take an archive of the official source')
    return '/'.join(parts)


class ZipSource(Source):
    """A zip file."""
    errors = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)

    def __init__(self, path: str):
        super().__init__(path)
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except zipfile.BadZipFile as error:  # most likely there is no table of contents at its end
            raise self.damaged(error) from error
        for info in infos:
            name = check_name(_decoded(info), self)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise self.error(f'holds {name!r}, a link: nothing was unpacked; take an archive '
                                 'of the official source')
            if info.is_dir():
                continue
            if info.flag_bits & ENCRYPTED_FLAG:
                raise self.error(f'is encrypted ({name!r}): unpack it yourself, and give the '
                                 'folder')
            self.members.append(Member(name, info.file_size, info.CRC, info))

    def read(self, wanted: set[str]) -> Iterator[tuple[Member, IO[bytes]]]:
        """Opens the wanted members."""
        with zipfile.ZipFile(self.path) as archive:
            for member in self.members:
                if member.name in wanted:
                    with archive.open(member.handle) as file:
                        yield member, file


def _decoded(info: zipfile.ZipInfo) -> str:
    """Decodes a name; old tools write UTF-8 and do not set its flag."""
    if info.flag_bits & UTF8_FLAG or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode('cp437').decode()
    except UnicodeError:
        return info.filename


class TarSource(Source):
    """A tar file, compressed or not, which is read from its start to its end."""
    errors = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)

    def __init__(self, path: str):
        super().__init__(path)
        try:
            self._list()
        except self.errors as error:
            raise self.damaged(error) from error

    def _list(self) -> None:
        with tarfile.open(self.path) as archive:
            for info in archive:
                name = check_name(info.name, self)
                if info.issym() or info.islnk() or info.isdev():
                    raise self.error(f'holds {name!r}, a link or a device: nothing was unpacked; '
                                     'take an archive of the official source')
                if info.isfile():
                    self.members.append(Member(name, info.size, None, info))
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EOFError('the block of zeros at the end is missing')
            while archive.fileobj.read(1 << 20):
                pass  # to the end, where a compressed file has its check sum

    def read(self, wanted: set[str]) -> Iterator[tuple[Member, IO[bytes]]]:
        """Opens the wanted members."""
        with tarfile.open(self.path) as archive:
            for info in archive:
                name = check_name(info.name, self)
                file = archive.extractfile(info) if info.isfile() and name in wanted else None
                if file is not None:
                    yield Member(name, info.size, None, info), file


class FolderSource(Source):
    """A folder that an archive was unpacked to."""

    def __init__(self, path: str):
        super().__init__(path)
        for folder, folders, names in os.walk(path, followlinks=True, onerror=_raise):
            folders.sort()
            for name in sorted(names):
                file = os.path.join(folder, name)
                if os.path.isfile(file):
                    inside = os.path.relpath(file, path).replace(os.sep, '/')
                    self.members.append(Member(inside, os.path.getsize(file), None, file))

    def read(self, wanted: set[str]) -> Iterator[tuple[Member, IO[bytes]]]:
        """Opens the wanted files."""
        for member in self.members:
            if member.name in wanted:
                with open(member.handle, 'rb') as file:
                    yield member, file

    def error(self, what: str) -> InputError:
        """Makes an error about this folder."""
        return InputError(f'folder {self.path} {what}')


class FileSource(FolderSource):
    """A single file that is published as it is."""

    def __init__(self, path: str):
        Source.__init__(self, path)
        self.members = [Member(Path(path).name, os.path.getsize(path), None, path)]


def _raise(error: OSError) -> None:
    raise error
