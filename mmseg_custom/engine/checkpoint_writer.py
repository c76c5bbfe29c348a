"""Writes the checkpoints of a run one at a time: at once, or while the training goes on.

    training:  copy to the host | next iterations                     | poll: log, remove older ones
    thread:                     | iter_2000.pth.part ... flush, rename |

The training waits only for the copy. Checkpoints are copied if they are large and the host has
memory for a copy. What follows a save, such as the line of the log and the removal of older
checkpoints, is done by the thread of the training once the file is written.
"""
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.distributed as dist
from mmcv.runner import BaseRunner

from ..checkpoint.save import FileSave
from ..checkpoint.sharded import FolderSave
from ..checkpoint.staging import HostCopies, bytes_of
from ..distributed.collectives import gather_to_all, new_group
from ..distributed.hosts import by_host, host_id
from ..files import SaveError
from ..host_memory import free_host_memory
from ..logs import saying
from ..units import GIB, format_bytes

LARGE = GIB  # bytes of a process: smaller checkpoints are written at once
ROOM = 1.5  # free bytes for each byte of a copy, in addition to RESERVE
RESERVE = GIB
Save = FileSave | FolderSave


@dataclass(frozen=True)
class Outcome:
    """How a save ended.

    Attributes:
        path: Path of the checkpoint.
        error: Why it is not there; None if it is.
        waited: Seconds that the training waited for the save.
        wrote: Seconds that writing took in the background; None if it was written at once.
    """
    path: str
    error: SaveError | None = None
    waited: float = 0.0
    wrote: float | None = None

    def __str__(self) -> str:
        written = '' if self.wrote is None else f', written in {_seconds(self.wrote)}'
        return f'{self.path}: training waited {_seconds(self.waited)}{written}'


Finished = Callable[[Outcome], object]


class _Writing(threading.Thread):
    """Writes one checkpoint.

    A process that exits waits for it, unless it is killed.

    Args:
        save: Checkpoint whose tensors are copies on the host.
        group: Group of all ranks for this thread alone; None where one process writes.
        finished: Function that is called with the outcome, by the training's thread.
        waited: Seconds that the training has waited already.
    """

    def __init__(self, save: Save, group: dist.ProcessGroup | None, finished: Finished,
                 waited: float):
        super().__init__(name=f'saving {save.path}')
        self._save, self._group = save, group
        self.path, self._finished, self._waited = save.path, finished, waited
        self._wrote = 0.0
        self._error: Exception | None = None

    def run(self) -> None:
        """Writes the checkpoint."""
        began = time.monotonic()
        try:
            self._save.write(self._group)
        except Exception as error:  # It is raised where the training polls.
            self._error = error
        self._wrote = time.monotonic() - began

    def report(self) -> None:
        """Reports the outcome; called once, by the thread of the training."""
        if self._error is not None and not isinstance(self._error, SaveError):
            raise self._error
        self._finished(Outcome(self.path, self._error, self._waited, self._wrote))


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time.

    Args:
        logger: Logger of the run.

    Attributes:
        background: Whether checkpoints are written while the training goes on, where the host has
            memory for a copy; None: those that are large.
    """

    def __init__(self, logger: logging.Logger):
        self.background: bool | None = False
        self._logger = logger
        self._copies: HostCopies | None = None
        self._group: dist.ProcessGroup | None = None
        self._writing: _Writing | None = None

    def write(self, save: Save, began: float, finished: Finished | None) -> None:
        """Writes a checkpoint; called on all ranks if all of them write it.

        Args:
            save: Checkpoint, whose tensors may be those of the model.
            began: Time at which the training began to wait, by ``time.monotonic``.
            finished: Function that is called with the outcome, in the main thread: by this call, or
                by a later one of :meth:`poll` or :meth:`wait`. None: what fails is raised.

        Raises:
            SaveError: If it could not be written, and there is no function to tell.
        """
        self.wait()
        if finished is not None and self._is_for_background(save):
            copied = self._copy(save)
            if copied is not None:
                if save.by_all_ranks and self._group is None:
                    # The training's own collectives must not meet those of the thread.
                    self._group = new_group(backend='gloo')
                self._writing = _Writing(copied, self._group if save.by_all_ranks else None,
                                         finished, time.monotonic() - began)
                self._writing.start()
                return
        error = None
        try:
            with saying(f'saving {save.path}'):
                save.write()
        except SaveError as caught:
            if finished is None:
                raise
            error = caught
        if finished is not None:
            finished(Outcome(save.path, error, time.monotonic() - began))

    def poll(self) -> None:
        """Does what is left to do for a checkpoint that has been written meanwhile."""
        if self._writing is not None and not self._writing.is_alive():
            self.wait()

    def wait(self) -> None:
        """Waits for the checkpoint that is being written, and does what is left to do for it."""
        if self._writing is None:
            return
        writing, began = self._writing, time.monotonic()
        if writing.is_alive():
            with saying(f'waiting until {writing.path} is written'):
                writing.join()
            self._logger.info('waited %s until %s was written',
                              _seconds(time.monotonic() - began), writing.path)
        self._writing = None
        writing.report()

    def close(self) -> None:
        """Waits for what is being written when a run ends by an error, which it leaves alone."""
        try:
            self.wait()
        except Exception as error:  # The run ends by the other one.
            self._logger.error('the checkpoint that was being written is lost: %s', error)

    def _is_for_background(self, save: Save) -> bool:
        """Decides on all ranks alike, and whether copies are pinned."""
        if self.background is False:
            return False
        largest = max(_of_all(save, bytes_of(save.content)))
        if self.background is None and largest < LARGE:
            return False
        copies = self._copies or HostCopies(pinned=torch.cuda.is_available())
        lacking = _lacking(save, copies.bytes_to_take(save.content, copies.pinned))
        if lacking is not None and copies.pinned:
            copies.pinned = False
            lacking = _lacking(save, copies.bytes_to_take(save.content, pinned=False))
        if lacking is not None:
            self._give_up(lacking)
            return False
        self._copies = copies
        return True

    def _copy(self, save: Save) -> Save | None:
        """Returns the checkpoint with copies of its tensors; None on all ranks if one has none."""
        assert self._copies is not None
        problem, copied = None, None
        try:
            copied = replace(save, content=cast(Any, self._copies.copy(save.content)))
        except (MemoryError, RuntimeError) as error:
            problem = str(error).splitlines()[0] if str(error) else 'no memory'
        problems = [each for each in _of_all(save, problem) if each is not None]
        if problems:
            self._give_up(problems[0])
            return None
        return copied

    def _give_up(self, why: str) -> None:
        """Writes all further checkpoints at once."""
        self._logger.warning('checkpoints are written at once, and the training waits for them: '
                             'no room for a copy in the memory of the host (%s)', why)
        self.background, self._copies = False, None


def _of_all(save: Save, value: object) -> list:
    """Returns the values of all ranks that write."""
    return gather_to_all(value) if save.by_all_ranks else [value]


def _lacking(save: Save, nbytes: int) -> str | None:
    """Says which host has no room for the copies of its processes; None if all have."""
    found = _of_all(save, (host_id(), nbytes, free_host_memory()))
    for ranks in by_host([host for host, _, _ in found]):
        taken = sum(found[rank][1] for rank in ranks)
        free = min(found[rank][2] for rank in ranks)
        if taken and taken * ROOM + RESERVE > free:
            return (f'{format_bytes(taken)} on {found[ranks[0]][0].split()[0]}, of which '
                    f'{format_bytes(free)} are free')
    return None


def wait_for_checkpoint(runner: BaseRunner) -> None:
    """Waits for the checkpoint that a runner is writing; runners of mmcv write at once."""
    writer = getattr(runner, 'checkpoint_writer', None)
    if isinstance(writer, CheckpointWriter):
        writer.wait()


def save_checkpoint(runner: BaseRunner, folder: str, finished: Finished, **options) -> None:
    """Saves a checkpoint, in the background where the runner can; errors go to ``finished``.

    Args:
        runner: Runner.
        folder: Folder of the checkpoint.
        finished: Function that is called with the outcome: see :meth:`CheckpointWriter.write`.
        **options: Options of the runner's ``save_checkpoint``.
    """
    if isinstance(getattr(runner, 'checkpoint_writer', None), CheckpointWriter):
        runner.save_checkpoint(folder, finished=finished, **options)
        return
    began = time.monotonic()
    try:
        outcome = Outcome(runner.save_checkpoint(folder, **options))
    except SaveError as error:
        outcome = Outcome(str(error.filename), error)
    finished(replace(outcome, waited=time.monotonic() - began))


def _seconds(count: float) -> str:
    return f'{count:.1f} s' if count < 10 else f'{count:.0f} s'
