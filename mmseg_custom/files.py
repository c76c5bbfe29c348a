"""Files, folders and links that are written whole or not at all.

Each is written under a temporary name beside its own, flushed to the disk, and renamed.
"""
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .units import format_bytes

PART = '.part'


class SaveError(OSError):
    """A file could not be written; what was there before is unchanged."""

    def __str__(self) -> str:
        return f'{self.filename} {self.strerror}'


@contextmanager
def atomic_path(path: str, unique: bool = False) -> Iterator[str]:
    """Gives a temporary name beside a file; flushes and renames at the end.

    Args:
        path: Name of the file.
        unique: Whether the temporary name is the process's own, for a file that several processes
            may write at the same time.

    Raises:
        SaveError: If writing failed; the temporary file is gone, and what was at the path is there.
    """
    part = f'{path}.{os.getpid()}{PART}' if unique else path + PART
    try:
        yield part
        flush(part)
        os.replace(part, path)
        flush(os.path.dirname(os.path.abspath(path)))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise as_save_error(error, path) from error
    finally:
        if os.path.exists(part):
            os.remove(part)


def atomic_write(path: str | os.PathLike, data: bytes | str, unique: bool = False) -> None:
    """Writes a file whole.

    Args:
        path: Name of the file.
        data: Content; text becomes UTF-8.
        unique: See :func:`atomic_path`.

    Raises:
        SaveError: If it failed; what was at the path is still there.
    """
    with atomic_path(os.fspath(path), unique) as part, open(part, 'wb') as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_folder(path: str) -> Iterator[str]:
    """Gives an empty temporary folder beside a folder; renames it at the end.

    Who writes a file in it flushes that file.

    Raises:
        SaveError: If writing failed; the temporary folder is gone, and what was at the path is
            there.
    """
    try:
        part = begin_folder(path)
        yield part
        commit_folder(path)
    except (OSError, RuntimeError) as error:
        raise as_save_error(error, path) from error
    finally:
        shutil.rmtree(path + PART, ignore_errors=True)


def make_folder(path: str) -> None:
    """Makes a folder, unless it is there.

    Raises:
        SaveError: If it cannot be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise SaveError(error.errno, f'cannot be made ({error.strerror})', path) from error


def append_line(path: str, line: str) -> None:
    """Appends a line to a file, whole or not at all.

    Raises:
        SaveError: If it failed; the earlier lines are unchanged.
    """
    try:
        with open(path, 'ab', buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            data = line.encode() + b'\n'
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):  # no regular file
                    file.truncate(end)
                raise
    except OSError as error:
        raise as_save_error(error, path) from error


def begin_folder(path: str) -> str:
    """Makes the empty temporary folder of a folder, and returns its path."""
    shutil.rmtree(path + PART, ignore_errors=True)
    os.makedirs(path + PART)
    return path + PART


def commit_folder(path: str) -> None:
    """Gives the temporary folder of a folder its name; an earlier folder of that name goes."""
    old = None
    if os.path.exists(path):
        root, ending = os.path.splitext(path)
        old = f'{root}.old{ending}{PART}'  # ends like what is half-written: removed after a kill
        os.rename(path, old)
    os.rename(path + PART, path)
    if old:
        shutil.rmtree(old)
    flush(os.path.dirname(os.path.abspath(path)))


def replace_link(link: str, path: str) -> None:
    """Makes a name in the folder of a file a link to it, without a moment in which it is missing.

    It is a copy on file systems without links.

    Raises:
        SaveError: If it could not be written; an earlier link is unchanged.
    """
    part = link + PART
    try:
        if os.path.lexists(part):
            os.remove(part)
        try:
            os.symlink(os.path.basename(path), part)
        except OSError:
            shutil.copyfile(path, part)
        os.replace(part, link)
    except OSError as error:
        raise as_save_error(error, link) from error


def flush(path: str) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_save_error(error: BaseException, path: str) -> SaveError:
    """Says why a write failed; torch does not, when the disk is full."""
    if isinstance(error, SaveError):
        return error
    folder = os.path.dirname(os.path.abspath(path))
    reason = getattr(error, 'strerror', None) or (str(error).splitlines() or [repr(error)])[0]
    if 'enforce fail' in reason or 'iostream' in reason:  # all that torch says then
        reason = 'writing it failed midway'
    if os.path.isdir(folder):
        reason += f'; {format_bytes(shutil.disk_usage(folder).free)} were free on its disk'
    else:
        reason = f'the folder {folder} does not exist'
    return SaveError(getattr(error, 'errno', None) or errno.EIO,
                     f'was not written ({reason}); earlier files are unchanged', path)
