"""Checkpoints in a work dir: the latest, the newest whole one, and leftovers of killed runs."""
import logging
import os
import re
import shutil
import zipfile

from ..errors import InputError
from ..files import PART, replace_link
from .shard_reader import check_whole


def point_latest_to(path: str) -> None:
    """Makes ``latest.pth`` beside a checkpoint a link to it.

    Raises:
        SaveError: If it could not be written.
    """
    replace_link(os.path.join(os.path.dirname(path), 'latest.pth'), path)


def remove_leftovers(work_dir: str) -> list[str]:
    """Removes half-written files of a killed run; one rank calls it when a run starts.

    Returns:
        The paths that were removed.
    """
    leftover = [os.path.join(work_dir, name) for name in sorted(os.listdir(work_dir))
                if name.endswith(('.pth' + PART, '.dcp' + PART))]
    for path in leftover:
        remove_checkpoint(path)
        logging.getLogger('mmseg').info('removed %s, left by a run that was killed', path)
    return leftover


def remove_checkpoint(path: str) -> None:
    """Removes a checkpoint, file or folder."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def is_whole(path: str) -> bool:
    """Whether a checkpoint was written to its end; reads the directory of the file alone."""
    if os.path.isdir(path):
        try:
            check_whole(path)
        except InputError:
            return False
        return True
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            return any(entry.filename.endswith('/data.pkl') for entry in entries) and all(
                entry.header_offset + entry.compress_size < file.start_dir for entry in entries)
    except (OSError, zipfile.BadZipFile):
        return False


def checkpoints_in(folder: str, unit: str = 'iter') -> list[tuple[int, str]]:
    """Lists the checkpoints in a folder, whole or not, in ascending order.

    Args:
        folder: Folder of the checkpoints; one that does not exist has none.
        unit: 'iter' or 'epoch', the beginning of their names.

    Returns:
        (number of the iteration or epoch, path) of each.
    """
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbers = {name: re.fullmatch(rf'{unit}_(\d+)\.(?:pth|dcp)', name) for name in names}
    return sorted((int(number.group(1)), os.path.join(folder, name))
                  for name, number in numbers.items() if number)


def newest_whole(work_dir: str) -> str | None:
    """Returns the checkpoint of the highest iteration (or epoch) that was written to its end.

    The names count, not ``latest.pth``, which may be older. Newer ones that were cut short are
    named in a warning.
    """
    found = [*checkpoints_in(work_dir), *checkpoints_in(work_dir, 'epoch')]
    for _, path in sorted(found, reverse=True):
        if is_whole(path):
            return path
        logging.getLogger('mmseg').warning(
            '%s is cut short (%s) and is passed over', path, 'a part is missing or too small'
            if os.path.isdir(path) else f'{os.path.getsize(path)} bytes')
    return None
