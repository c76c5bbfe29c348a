"""Checkpoints in a work dir: the latest, the newest whole one, and leftovers of killed runs."""
import logging
import os
import re
import shutil

from ..errors import InputError
from ..files import PART, replace_link
from .content import check_meta, check_optimizer, check_progress
from .files import safe_load, wrapper_of
from .shard_reader import ShardReader


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


def fault_of(path: str) -> str | None:
    """Opens a checkpoint of a run and says why it cannot be resumed from; None if it can.

    The sums of a small one are checked; those of a large one while the run goes on, which ends if
    they are wrong, and passes it over when it starts again: see :mod:`.integrity`.
    """
    try:
        if os.path.isdir(path):
            reader = ShardReader(path)
            meta, optimizer = reader.header.get('meta'), reader.optimizer()
        else:
            content, _ = safe_load(path)
            meta, optimizer = content.get('meta'), content.get('optimizer')
            if wrapper_of(content) is None:
                return f'{path} holds no state_dict'
        check_progress(check_meta(meta, path), path)
        check_optimizer(optimizer, path)
    except InputError as error:
        return str(error)
    return None


def is_whole(path: str) -> bool:
    """Whether a checkpoint of a run was written to its end and is not damaged."""
    return fault_of(path) is None


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
    """Returns the checkpoint of the highest iteration (or epoch) that is whole and not damaged.

    The names count, not ``latest.pth``, which may be older. A warning names newer ones that are
    not, and the one that is taken in their place.
    """
    found = [*checkpoints_in(work_dir), *checkpoints_in(work_dir, 'epoch')]
    faults = []
    newest = None
    for _, path in sorted(found, reverse=True):
        fault = fault_of(path)
        if fault is None:
            newest = path
            break
        faults.append(fault)
    for fault in faults:
        logging.getLogger('mmseg').warning(
            '%s (passed over: %s)', fault,
            f'{newest} is taken' if newest else 'there is no other one')
    return newest
