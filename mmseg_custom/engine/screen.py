"""What a run shows on the screen: lines for a person. Its log file holds all that is logged.

Left out on the screen are the details of this package (:func:`..logs.log_details`) and what
mmcv and mmseg log or warn of, unless it is a warning of their loggers. With ``log_level='DEBUG'``
in the config, the screen shows everything.
"""
import logging
import os.path as osp
import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from mmap import mmap

import mmcv
import mmseg
from mmcv.runner import get_dist_info
from mmcv.utils import get_logger
from tqdm import tqdm

from ..logs import DETAILS, MAIN
from ..progress import STDERR, is_terminal
from .log_files import LogFile

LINE = '%(asctime)s - %(name)s - %(levelname)s - %(message)s'  # mmseg's, which tools read
LIBRARIES = tuple(osp.dirname(package.__file__) + osp.sep for package in (mmcv, mmseg))
MMCV, WARNINGS = 'mmcv', 'py.warnings'  # loggers of mmcv, and of Python's warnings
DIFFERENT = 512  # warnings that are told apart
_WARNING = re.compile(r'(?P<path>.+?):(?P<line>\d+): (?P<kind>\w+): (?P<text>.*)', re.DOTALL)


class Screen(logging.StreamHandler):
    """Prints on standard error, above progress bars."""

    def __init__(self):
        super().__init__(STDERR)
        self.addFilter(shown)
        self.setFormatter(_Short() if is_terminal() else _Plain(LINE))

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a line."""
        if not is_terminal():
            super().emit(record)
            return
        try:
            tqdm.write(self.format(record), STDERR)
        except Exception:
            self.handleError(record)


def shown(record: logging.LogRecord) -> bool:
    """Returns whether a record is for the screen."""
    if logging.getLogger(MAIN).level <= logging.DEBUG:
        return True
    if record.name == WARNINGS:
        found = _WARNING.match(record.getMessage())
        return found is None or not found['path'].startswith(LIBRARIES)
    return record.levelno >= logging.WARNING or not (
        record.name in (DETAILS, MMCV) or record.pathname.startswith(LIBRARIES))


def show_and_keep(level: str | int, path: str | None, needed: bool = True) -> str | None:
    """Lets loggers and Python's warnings go to the screen, in short, and to a file.

    On ranks other than 0, only errors are shown. A warning is shown once: also where a loop or
    each process repeats it.

    Args:
        level: Level of the log.
        path: Path of the log file; None keeps none.
        needed: Whether it is an error if the file cannot be opened.

    Returns:
        Path of the file, if there is one.
    """
    rank, _ = get_dist_info()
    file = None
    if path is not None:
        try:
            file = LogFile(path)
        except OSError:
            if needed:
                raise
        else:
            file.setFormatter(_Plain(LINE))
    logging.captureWarnings(True)
    for name in (MAIN, MMCV, WARNINGS):
        # mmcv's function has given its handlers to those that it knows, and adds none later.
        logger = logging.getLogger(name) if name == WARNINGS else get_logger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        added: list[logging.Handler] = [Screen()]
        if file is not None:  # mmcv writes past a handler that is a file; the second hands lines on
            added.append(file if name == MAIN else MemoryHandler(1, target=file))
        for handler in added:
            logger.addHandler(handler)
            if name == WARNINGS:
                handler.addFilter(_Once())
        logger.setLevel(level if rank == 0 else logging.ERROR)
        logger.propagate = False
    return None if file is None else path


@contextmanager
def kept_in(path: str) -> Iterator[None]:
    """Keeps what is logged in the block in another file, where a log is kept."""
    files = [handler for handler in logging.getLogger(MAIN).handlers
             if isinstance(handler, LogFile)]
    before = [file.switch(path) for file in files]
    try:
        yield
    finally:
        for file, earlier in zip(files, before):
            file.switch(earlier)


class _Once(logging.Filter):
    """Lets each warning pass once, of this process and the loader workers that it forks."""

    def __init__(self):
        super().__init__()
        self._seen = memoryview(mmap(-1, 8 * DIFFERENT)).cast('q')  # hashes, in shared memory

    def filter(self, record: logging.LogRecord) -> bool:
        own = hash(record.getMessage()) or 1
        for i, found in enumerate(self._seen):
            if found == own:
                return False
            if not found:
                self._seen[i] = own
                break
        return True


class _Plain(logging.Formatter):
    """Formats a warning of Python in one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - Python's name
        found = record.name == WARNINGS and _WARNING.match(record.message)
        if found:
            text = found['text'].splitlines()
            lines = text[:-1] if len(text) > 1 else text  # the last is that of the source
            where = f'{osp.basename(found["path"])}:{found["line"]}'
            record.message = f'{" ".join(lines)} ({found["kind"]}, {where})'
        return super().formatMessage(record)


class _Short(_Plain):
    """Formats lines for a terminal: time, and 'warning' or 'error' where it is one."""

    def __init__(self):
        super().__init__('%(asctime)s %(message)s', '%H:%M:%S')

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - Python's name
        text = super().formatMessage(record)
        if record.levelno >= logging.WARNING:
            time, rest = text.split(' ', 1)
            text = f'{time} {record.levelname.lower()}: {rest}'
        return text
