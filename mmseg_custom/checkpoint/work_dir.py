"""Checkpoints in a work dir: the latest, the newest whole one, and leftovers of killed runs."""
import logging
import os
import re
import shutil

from ..errors import InputError
from ..files import PART, replace_link
from .checkpoint import Checkpoint, open_checkpoint
from .content import check_optimizer, check_progress

LATEST = 'latest.pth'  # link to the newest checkpoint


def point_latest_to(path: str) -> None:
    """Makes ``latest.pth`` beside a checkpoint a link to it.

    Raises:
        SaveError: If it could not be written.
    """
    replace_link(os.path.join(os.path.dirname(path), LATEST), path)


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


def open_whole(path: str) -> Checkpoint:
    """Opens a checkpoint that a run can be resumed from.

    The sums of a small one are checked; those of a large one while the run goes on, which ends if
    they are wrong, and passes it over when it starts again: see :mod:`.integrity`.

    Raises:
        InputError: If it is damaged, or a run cannot be resumed from it.
    """
    checkpoint = open_checkpoint(path)
    check_progress(checkpoint.meta, path)
    check_optimizer(checkpoint.optimizer, path)
    return checkpoint


def is_whole(path: str) -> bool:
    """Whether a run can be resumed from a checkpoint; a warning says why not."""
    try:
        open_whole(path)
    except InputError as error:
        logging.getLogger('mmseg').warning('%s (passed over)', error)
        return False
    return True


def checkpoints_in(folder: str, unit: str = 'iter') -> list[tuple[int, str]]:
    """Lists the checkpoints in a folder, whole or not, in ascending order.

    Args:
        folder: Folder of the checkpoints; one that does not exist has none.
        unit: 'iter' or 'epoch', the beginning of their names.

    Returns:
        (number of the iteration or epoch, path) of each.
    """
    return _numbered(folder, rf'{unit}_(\d+)')


def best_checkpoints_in(folder: str) -> list[tuple[int, str]]:
    """Lists the checkpoints of best scores: see :func:`checkpoints_in`."""
    return _numbered(folder, r'best_.+_(?:iter|epoch)_(\d+)')


def _numbered(folder: str, name: str) -> list[tuple[int, str]]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = {one: re.fullmatch(rf'{name}\.(?:pth|dcp)', one) for one in names}
    return sorted((int(match.group(1)), os.path.join(folder, one))
                  for one, match in found.items() if match)


def newest_whole(work_dir: str) -> str | None:
    """Returns the path of the checkpoint that :func:`open_newest` opens."""
    newest = open_newest(work_dir)
    return newest.path if newest else None


def open_newest(work_dir: str) -> Checkpoint | None:
    """Opens the checkpoint of the highest iteration (or epoch) that is whole and not damaged.

    The names count, not ``latest.pth``, which may be older. A warning names newer ones that are
    not, and the one that is taken in their place.
    """
    found = [*checkpoints_in(work_dir), *checkpoints_in(work_dir, 'epoch')]
    faults: list[str] = []
    newest = None
    for _, path in sorted(found, reverse=True):
        try:
            newest = open_whole(path)
            break
        except InputError as error:
            faults.append(str(error))
    for fault in faults:
        logging.getLogger('mmseg').warning(
            '%s (passed over: %s)', fault,
            f'{newest.path} is taken' if newest else 'there is no other one')
    return newest
