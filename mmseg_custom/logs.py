"""What every part of a program logs: details for the file, and a word where something takes long.

``mmseg`` is the logger of all. What is logged under ``mmseg.details`` goes to the file of a run
alone: see :mod:`.engine.screen`.
"""
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

MAIN, DETAILS = 'mmseg', 'mmseg.details'
AFTER, EVERY = 4., 60.  # seconds until the first and between later lines of what takes long


def log_details(message: str, *values: object) -> None:
    """Logs what only the file of a run is to hold."""
    logging.getLogger(DETAILS).info(message, *values)


@contextmanager
def quiet(*names: str, level: int = logging.WARNING) -> Iterator[None]:
    """Keeps loggers from saying what is below a level.

    Args:
        names: Names of the loggers.
        level: Least level of what they log; one that says less already stays as it is.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(level, logger.level))
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels):
            logger.setLevel(before)


@contextmanager
def saying(doing: str, after: float = AFTER, every: float = EVERY) -> Iterator[None]:
    """Logs what the block does once that takes a while, and now and then until it ends.

    Args:
        doing: What is done, as the beginning of a sentence: 'loading the weights of a.pth'.
        after: Seconds until the first line; a block that is faster says nothing.
        every: Seconds between the next ones.
    """
    done, start = threading.Event(), time.monotonic()

    def say() -> None:
        wait = after
        while not done.wait(wait):
            passed = time.monotonic() - start
            logging.getLogger(MAIN).info('%s: %.0f s so far', doing, passed)
            wait = every

    thread = threading.Thread(target=say, daemon=True, name=doing)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
