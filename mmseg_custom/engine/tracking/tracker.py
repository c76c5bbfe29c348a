"""What every tracker does on rank 0, and what becomes of one that fails.

A tracker that cannot start ends the run before its first iteration; one that fails later is a
warning, and the run goes on without it.
"""
import os.path as osp
from abc import abstractmethod
from collections.abc import Callable, Mapping

from mmcv.runner import BaseRunner
from mmcv.runner.dist_utils import master_only
from mmcv.runner.hooks import LoggerHook

from ...errors import InputError
from .description import Description
from .lines import Line, SavedCheckpoint, checkpoints_of, line_of, summary_of


class Tracker(LoggerHook):
    """Base of the hooks that track a training: see :mod:`.lines`.

    Args:
        interval: Number of iterations between lines of losses.
        ignore_last: See mmcv's ``LoggerHook``.
        reset_flag: See mmcv's ``LoggerHook``.
        by_epoch: See mmcv's ``LoggerHook``.

    Attributes:
        title: Name of the tracker for people.
        num_images: Number of pictures of an evaluation that it asks for.
        description: Description of the run; None where mmseg's own tools have built the runner.
    """

    title: str
    num_images = 0
    description: Description | None = None

    def __init__(self, interval: int = 10, ignore_last: bool = True, reset_flag: bool = False,
                 by_epoch: bool = True):
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self._logged: Mapping[str, int] = {}
        self._noted: set[tuple[str, str]] = set()
        self._lost = False

    @abstractmethod
    def open(self, runner: BaseRunner, description: Description) -> Mapping[str, int]:
        """Begins a tracked run, or goes on in the one of a run that is resumed.

        Args:
            runner: Runner; its ``iter`` is above 0 if it is resumed.
            description: Description of the run.

        Returns:
            Kind of a line -> last iteration of which the tracked run has one; nothing is logged
            twice.

        Raises:
            InputError: If that fails.
        """

    @abstractmethod
    def send(self, line: Line) -> None:
        """Logs figures and pictures."""

    @abstractmethod
    def note(self, checkpoint: SavedCheckpoint, step: int) -> None:
        """Logs a reference to a checkpoint, before the iteration ``step``.

        A resumed run does so once more for those that it has found.
        """

    @abstractmethod
    def close(self, summary: Mapping[str, float | str]) -> None:
        """Ends the tracked run, with its best score if there is one."""

    def before_run(self, runner: BaseRunner) -> None:
        """Begins the tracked run, on rank 0.

        Raises:
            InputError: If that fails.
        """
        super().before_run(runner)
        if runner.rank == 0:
            self._logged = self.open(
                runner, self.description or Description.by_runner(runner))

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Logs a line, unless the tracked run has it from before an interruption."""
        if self._lost:
            return
        line = line_of(self, runner)
        if line.values and line.step > self._logged.get(line.kind, 0):
            self._guarded(runner, self.send, line)

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Notes the checkpoints of the last iteration."""
        if runner.rank == 0:
            self._note_checkpoints(runner)

    def after_run(self, runner: BaseRunner) -> None:
        """Ends the tracked run."""
        if runner.rank == 0:
            self._note_checkpoints(runner)
            self._guarded(runner, self.close, summary_of(runner))

    def _note_checkpoints(self, runner: BaseRunner) -> None:
        for role, path in checkpoints_of(runner):
            if (role, path) not in self._noted and osp.exists(path):
                self._noted.add((role, path))
                self._guarded(runner, self._note, role, path, runner.iter + 1)

    def _note(self, role: str, path: str, step: int) -> None:
        self.note(SavedCheckpoint.of(role, path), step)

    def _guarded(self, runner: BaseRunner, call: Callable, *arguments: object) -> None:
        """Calls a tracker; the first error is a warning, after which it is left alone."""
        if self._lost:
            return
        try:
            call(*arguments)
        except Exception as error:  # A run of days must not end because a server does.
            self._lost = True
            runner.logger.warning('%s: lines are lost from here on (%s); the run goes on',
                                  self.title, reason_of(error))


def reason_of(error: BaseException) -> str:
    """Returns the first line of an error."""
    text = getattr(error, 'strerror', None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def refused(hook: str, error: Exception, way_out: str) -> InputError:
    """Returns the error of a tracker that cannot start."""
    return InputError(f'{hook}: {reason_of(error)}; {way_out}, or leave the hook out')
