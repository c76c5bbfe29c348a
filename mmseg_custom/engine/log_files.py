"""Logs on a full disk: lines are lost, with one warning, and the run goes on."""
import logging
import os
import sys
from collections.abc import Callable

from mmcv.runner import HOOKS, BaseRunner
from mmcv.runner.hooks import TensorboardLoggerHook

from ..compat.event_files import quiet_event_files


class LogFile(logging.FileHandler):
    """Log file that says once that lines are lost; Python's prints a traceback for each."""

    def __init__(self, path: str):
        super().__init__(path, encoding='utf-8')
        self._told = False

    def switch(self, path: str) -> str:
        """Goes on in another file, at its end; returns the path of the one before.

        Raises:
            OSError: If it cannot be opened.
        """
        self.acquire()
        try:
            self.close()
            before, self.baseFilename = self.baseFilename, os.path.abspath(path)
            self.stream = self._open()
        finally:
            self.release()
        return before

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - Python's name
        """Warns when the disk does not take a line; a bug in a message still shows as one."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True  # first: the warning comes here, too
            warn_of_loss(logging.getLogger(record.name), self.baseFilename, error)


def warn_of_loss(logger: logging.Logger, path: str | None, error: OSError) -> None:
    """Says that a log is incomplete from here on."""
    logger.warning('%s: lines are lost from here on (%s); the run goes on', path or 'a log',
                   error.strerror or error)


@HOOKS.register_module('TensorboardLoggerHook', force=True)
class SegTensorboardLoggerHook(TensorboardLoggerHook):
    """Extends mmcv's hook: events that cannot be written end no run."""

    _lost = False

    def before_run(self, runner: BaseRunner) -> None:
        """Opens the file of events."""
        quiet_event_files()
        self._guarded(super().before_run, runner)

    def log(self, runner: BaseRunner) -> None:
        """Writes the events of an iteration."""
        if not self._lost:
            self._guarded(super().log, runner)

    def after_run(self, runner: BaseRunner) -> None:
        """Closes the file."""
        if not self._lost:
            self._guarded(super().after_run, runner)

    def _guarded(self, stage: Callable[[BaseRunner], None], runner: BaseRunner) -> None:
        """Runs a stage of the hook. TensorBoard's writer does not recover from its first error."""
        try:
            stage(runner)
        except OSError as error:
            self._lost = True
            warn_of_loss(runner.logger, self.log_dir, error)
