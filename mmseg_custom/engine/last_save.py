"""The checkpoint of the last iteration: a run that ends without it has failed.

Its own folder is tried, then again for a while, then the spare folder. What takes none of them ends
as an error that says what is where.
"""
import hashlib
import logging
import os
import os.path as osp
import tempfile
import time
from collections.abc import Callable

from mmcv.runner import BaseRunner

from ..checkpoint.work_dir import checkpoints_in
from ..choices import PATIENCE, PATIENCE_BEFORE_SPARE
from ..distributed.collectives import broadcast_from_rank0
from ..distributed.parallelize import is_sharded
from ..errors import InputError
from ..files import SaveError, make_folder

FIRST_PAUSE, LONGEST_PAUSE = 2, 30  # seconds
Save = Callable[[str], SaveError | None]  # folder -> why the checkpoint is not there


class LastSave:
    """Insists on a checkpoint that a run must not end without.

    Args:
        spare_dir: Folder on another disk, for what the work dir does not take.
        patience: Seconds that are waited for room in the work dir, over all runners that share
            this object; with a spare folder, at most 10.
    """

    def __init__(self, spare_dir: str | None = None, patience: float = PATIENCE):
        self.spare_dir = spare_dir
        self._left = patience if spare_dir is None else min(patience, PATIENCE_BEFORE_SPARE)

    def spare_folder(self, work_dir: str) -> str | None:
        """Returns the folder for a run in the spare folder, which several runs may share."""
        if self.spare_dir is None:
            return None
        return osp.join(self.spare_dir, spare_name(work_dir))

    def save_now(self, save: Save, folder: str, work_dir: str, logger: logging.Logger) -> None:
        """Saves, in the spare folder if the other has no room, without waiting.

        Args:
            save: Saves the checkpoint in a folder.
            folder: Folder of the checkpoints.
            work_dir: Work dir of the run, which names its folder in the spare one.
            logger: Logger of the run.

        Raises:
            SaveError: If neither takes it.
        """
        error, spare = save(folder), self.spare_folder(work_dir)
        if error is not None and spare is not None:
            logger.warning('%s; the checkpoint goes to %s: give it as --resume-from', error, spare)
            error = save(spare)
        if error is not None:
            raise error

    def insist(self, save: Save, folder: str, work_dir: str, done: int,
               logger: logging.Logger) -> SaveError | None:
        """Saves; waits and tries again if that fails, and then takes the spare folder.

        Called on all ranks, which wait for each other at each try.

        Args:
            save: Saves the checkpoint in a folder, on the ranks that write.
            folder: Folder of the checkpoints.
            work_dir: Work dir of the run, which names its folder in the spare one.
            done: Number of the last iteration.
            logger: Logger of the run.

        Returns:
            What the run is to fail with; None if the checkpoint is on a disk.
        """
        error = broadcast_from_rank0(save(folder))
        waited, pause = 0., float(FIRST_PAUSE)
        while error is not None and self._left > 0:
            pause = min(pause, self._left)
            logger.warning('the last checkpoint is not on the disk: %s; the next try is in %.0f s, '
                           'the last in %.0f s: make room in %s', error, pause, self._left, folder)
            time.sleep(pause)
            self._left, waited = self._left - pause, waited + pause
            pause = min(2 * pause, LONGEST_PAUSE)
            error = broadcast_from_rank0(save(folder))
        if error is None:
            return None
        tries = [f'{error.strerror}' + (f'; tried again for {waited:.0f} s' if waited else '')]
        spare = self.spare_folder(work_dir)
        if spare is not None:
            in_spare = broadcast_from_rank0(save(spare))
            if in_spare is None:
                logger.warning('%s; the last checkpoint is in %s instead: move it to %s, or give '
                               'it as --resume-from', error, spare, folder)
                return None
            tries.append(f'{in_spare.filename}: {in_spare.strerror}')
        else:
            tries.append('--spare-dir names a folder on another disk for such a case')
        return SaveError(error.errno, f'{"; ".join(tries)}; the weights of iteration {done} are '
                         f'lost, {_what_is_there(folder)}', error.filename)


def spare_name(work_dir: str) -> str:
    """Returns the name of a run's folder in a spare one."""
    path = osp.abspath(work_dir)  # runs in other folders may have the same last name
    digest = hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:8]
    return f'{osp.basename(path)}-{digest}'


def save_at_stop(runner: BaseRunner, last_save: LastSave) -> None:
    """Saves the checkpoint of a run that ends early; called on all ranks.

    Raises:
        SaveError: If neither the work dir nor the spare folder takes it.
    """
    def save(folder: str) -> SaveError | None:
        try:
            if not is_sharded(runner.model):
                make_folder(folder)
            runner.save_checkpoint(folder)
        except SaveError as error:
            return error
        return None

    if runner.rank == 0 or is_sharded(runner.model):
        last_save.save_now(save, runner.work_dir, runner.work_dir, runner.logger)


def check_spare_folder(spare_dir: str | None) -> None:
    """Creates the spare folder and tries to write in it, before the training starts.

    Raises:
        InputError: If it cannot be written.
    """
    if spare_dir is None:
        return
    try:
        os.makedirs(spare_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=spare_dir):
            pass
    except OSError as error:
        raise InputError(f'--spare-dir {spare_dir} takes no files ({error.strerror}): expected a '
                         'folder on another disk than the work dir') from error


def _what_is_there(folder: str) -> str:
    """Says what a failed run leaves, and how it is resumed."""
    found = checkpoints_in(folder)
    if not found:
        return f'and there is no checkpoint in {folder}: make room and train again'
    number, path = found[-1]
    return f'those of iteration {number} are in {path}: make room and resume with --auto-resume'
