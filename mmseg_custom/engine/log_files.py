"""Logs on a full disk: lines are lost, with one warning, and the run goes on."""
import logging
import os
import sys


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
