"""Members of archives -> files. Files that are there already stay, so that a run can be resumed.

A file is written under a temporary name and renamed, and is not flushed one by one: after a loss of
power it may have its name and not its content. Files that are there are therefore compared, by
CRC-32 or byte by byte.
"""
import errno
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from ...errors import InputError
from ...files import PART
from ...progress import progress_bar
from ...units import format_bytes
from .archive import FolderSource, Member, Source

CHUNK = 1 << 20
BLOCK = 4096  # bytes that a file takes up at least
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ExtractionPlan:
    """Members of a source that are needed.

    Attributes:
        source: Archive or folder that holds them.
        targets: Name of a member -> path below the root.
    """
    source: Source
    targets: dict[str, str]

    @property
    def bytes(self) -> int:
        """Size of all these members."""
        return sum(member.bytes for member in self.source.members if member.name in self.targets)


def unpack(plans: Iterable[ExtractionPlan], root: Path, link: bool = False) -> int:
    """Writes what is missing below ``root``.

    Args:
        plans: Members to write, for each source.
        root: Folder to write to; it is made if it is not there.
        link: Whether to link to the files of folders instead of copying them.

    Returns:
        The number of files that were written.

    Raises:
        InputError: If an archive is damaged, the disk is full, the target cannot be written, or a
            link in it leads out of it.
    """
    plans = list(plans)
    written = 0
    try:
        root.mkdir(parents=True, exist_ok=True)
        for plan in plans:
            _make_folders(plan, root)
        missing = [] if link else [_missing(plan, root) for plan in plans]
        _check_space(sum(missing), root)
        with progress_bar(sum(plan.bytes for plan in plans), 'B', 'unpacking', leave=False) as bar:
            for plan in plans:
                written += _unpack_one(plan, root, link, bar)
        os.sync()  # once, and not for each of 44,000 files: a new run compares them all
    except OSError as error:
        raise _as_input_error(error, root) from error
    return written


def _make_folders(plan: ExtractionPlan, root: Path) -> None:
    """Makes the folders; refuses one that is a link out of the root."""
    inside = root.resolve()
    for folder in sorted({str(Path(target).parent) for target in plan.targets.values()}):
        path = root / folder
        for above in (path, *path.parents):
            if above.is_symlink() and above != root and root in above.parents:
                if not above.resolve().is_relative_to(inside):
                    raise InputError(f'{above} is a link that leads out of {root}: nothing is '
                                     'written through it; remove it, or check the folder that it '
                                     'leads to by giving it as the archive')
        path.mkdir(parents=True, exist_ok=True)


def _missing(plan: ExtractionPlan, root: Path) -> int:
    """Counts the bytes to write, in whole blocks of the disk; files are compared by size."""
    return sum(-(-member.bytes // BLOCK) * BLOCK for member in plan.source.members
               if member.name in plan.targets
               and _size(root / plan.targets[member.name]) != member.bytes)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _check_space(needed: int, root: Path) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise InputError(f'{root} has {format_bytes(free, decimal=True)} free, and '
                         f'{format_bytes(needed, decimal=True)} are needed: make room, or choose '
                         'another disk with --out')


def _unpack_one(plan: ExtractionPlan, root: Path, link: bool, bar: tqdm) -> int:
    link = link and isinstance(plan.source, FolderSource)
    wanted = set()
    for member in plan.source.members:
        if member.name not in plan.targets:
            continue
        path = root / plan.targets[member.name]
        if member.crc is not None and _size(path) == member.bytes and _crc(path) == member.crc:
            bar.update(member.bytes)
        else:
            wanted.add(member.name)
    written, name = 0, ''
    try:
        for member, file in plan.source.read(wanted):
            name = member.name
            written += _extract(member, file, root / plan.targets[name], link, bar)
    except plan.source.errors as error:
        raise plan.source.damaged(error, f' after or at {name}' if name else '') from error
    return written


def _extract(member: Member, file: IO[bytes], path: Path, link: bool, bar: tqdm) -> bool:
    """Writes a member or links to it; returns False if it was there already."""
    if link:
        bar.update(member.bytes)
        return _link(member, path)
    if member.crc is None and _size(path) == member.bytes and _same(path, file, bar):
        return False
    _write(file, path, bar)
    return True


def _crc(path: Path) -> int:
    crc = 0
    with open(path, 'rb') as file:
        while data := file.read(CHUNK):
            crc = zlib.crc32(data, crc)
    return crc


def _same(path: Path, file: IO[bytes], bar: tqdm) -> bool:
    """Compares a file with a member, which is rewound if they differ."""
    with open(path, 'rb') as other:
        while data := file.read(CHUNK):
            if other.read(len(data)) != data:
                file.seek(0)
                return False
    bar.update(path.stat().st_size)
    return True


def _write(file: IO[bytes], path: Path, bar: tqdm) -> None:
    with _renamed(path) as part, open(part, 'wb') as target:
        while data := file.read(CHUNK):
            target.write(data)
            bar.update(len(data))


def _link(member: Member, path: Path) -> bool:
    source = os.path.abspath(member.handle)
    if path.is_symlink() and os.readlink(path) == source:
        return False
    with _renamed(path) as part:
        os.symlink(source, part)
    return True


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside a file; renames at the end.

    Unlike :func:`...files.atomic_path` it does not flush each of 44,000 files, and it passes on
    what reading a damaged archive raises, which may be an OSError too.
    """
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _as_input_error(error: OSError, root: Path) -> InputError:
    if error.errno in FULL:
        return InputError(f'the disk of {root} is full ({error.strerror}): what was written is '
                          'whole; make room and run the command again to resume')
    return InputError(f'{error.filename or root}: {error.strerror or error}; choose another folder '
                      'with --out')
