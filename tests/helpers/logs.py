"""What is logged during a test, and loggers without the handlers of earlier tests."""
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mmcv.utils.logging import logger_initialized


@contextmanager
def logged(name: str = 'mmseg', level: int = logging.INFO) -> Iterator[list[str]]:
    """Collects the messages of a logger, whether or not it propagates them."""
    lines, logger = [], logging.getLogger(name)
    handler, before = logging.Handler(level), logger.level
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def reset_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes handlers of earlier tests, whose streams are closed, until the end of the test."""
    monkeypatch.setattr(logging, '_warnings_showwarning', None)  # warnings are not captured
    for name in ('mmcv', 'mmseg', 'py.warnings'):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, 'handlers', [])
        for setting in ('level', 'propagate'):
            monkeypatch.setattr(logger, setting, getattr(logger, setting))
        monkeypatch.delitem(logger_initialized, name, raising=False)
