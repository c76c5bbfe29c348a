"""Files and folders that are written whole or not at all."""
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

PART = '.part'


class SaveError(OSError):
    """A checkpoint could not be written; what was there before is unchanged."""

    def __str__(self) -> str:
        return f'{self.filename} {self.strerror}'


@contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Gives a temporary name beside a file; flushes and renames at the end.

    Raises:
        SaveError: If writing failed; the temporary file is gone, and what was at the path is there.
    """
    part = path + PART
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


def flush(path: str) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_save_error(error: Exception, path: str) -> SaveError:
    """Says why a write failed; torch does not, when the disk is full."""
    folder = os.path.dirname(os.path.abspath(path))
    reason = getattr(error, 'strerror', None) or (str(error).splitlines() or [repr(error)])[0]
    if 'enforce fail' in reason or 'iostream' in reason:  # all that torch says then
        reason = 'writing it failed midway'
    if os.path.isdir(folder):
        reason += f'; {shutil.disk_usage(folder).free / 2**20:.0f} MiB were free on its disk'
    else:
        reason = f'the folder {folder} does not exist'
    return SaveError(getattr(error, 'errno', None) or errno.EIO,
                     f'was not written ({reason}); earlier files are unchanged', path)


def atomic_write(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file whole.

    Raises:
        SaveError: If it failed; what was at the path is still there.
    """
    with atomic_path(os.fspath(path)) as part, open(part, 'wb') as file:
        file.write(data)
