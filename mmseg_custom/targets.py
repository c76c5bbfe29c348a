"""Targets that are written at the end of a long run: tried first, with fallbacks."""
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress

from .files import SaveError, as_save_error
from .units import format_bytes

_TRIAL_BYTES = 64 * 1024


def try_target(path: str | os.PathLike, nbytes: int = 0, make_folder: bool = True) -> None:
    """Tries to write in the folder of a file that a long run is to write at its end.

    Args:
        path: Path of the file.
        nbytes: Bytes that it will take.
        make_folder: Whether to make its folder where it is missing.

    Raises:
        SaveError: If the file could not be written now.
    """
    path = os.path.abspath(path)
    try:
        if make_folder:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        if nbytes > shutil.disk_usage(os.path.dirname(path)).free:
            raise OSError(errno.ENOSPC, f'it takes {format_bytes(nbytes)}', path)
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, 'it is a folder', path)
        # Without a name, so that a kill leaves nothing.
        with tempfile.TemporaryFile(dir=os.path.dirname(path)) as file:
            file.write(bytes(_TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise as_save_error(error, path) from error


def spare_folders() -> list[str]:
    """Lists folders for what cannot be written in its place: the current and the temporary one."""
    folders = ['.']
    with suppress(FileNotFoundError):  # there is none that can be written
        folders.append(tempfile.gettempdir())
    return folders


def write_or_rescue(path: str, write: Callable[[str], object], spares: Iterable[str]) -> str:
    """Writes a file at its path or, where that fails, to the first other folder that takes it.

    Args:
        path: Path of the file.
        write: Function that writes a file of a given path, whole or not at all.
        spares: Other folders. A file in them that has the name already is left alone.

    Returns:
        Path of what was written.

    Raises:
        SaveError: If no folder takes it.
    """
    try:
        write(path)
        return path
    except SaveError as error:
        failed = error
    for folder in spares:
        root, ending = os.path.splitext(os.path.join(os.path.abspath(folder),
                                                     os.path.basename(path)))
        spare = next(name for name in (f'{root}{n}{ending}' for n in ('', *range(2, 10_000)))
                     if not os.path.exists(name))
        try:
            write(spare)
            return spare
        except SaveError:
            continue
    raise failed
