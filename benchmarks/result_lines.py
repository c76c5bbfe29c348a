"""Plugin of pytest that writes the result of each test as soon as it is known.

One line of JSON when a test begins (state 'started') and one after each of its phases, in the file
that the variable RESULT_LINES names. They survive a crash of the process. Setup and teardown have a
state only where they did not pass.
"""
import json
import os

import pytest


def pytest_runtest_logstart(nodeid: str) -> None:
    """Writes that a test begins."""
    _write(nodeid, 'started', 0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Writes the result of a phase: setup, call or teardown."""
    reason = ''
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix('Skipped: ')
    elif report.failed:
        crash = getattr(report.longrepr, 'reprcrash', None)
        reason = crash.message if crash is not None else str(report.longrepr)
    decides = report.when == 'call' or not report.passed
    _write(report.nodeid, report.outcome if decides else '', report.duration, reason)


def _write(name: str, state: str, seconds: float, reason: str = '') -> None:
    name = name.rpartition('/')[2].replace('.py::', '::')
    first_line = (reason.splitlines() or [''])[0][:200]
    with open(os.environ['RESULT_LINES'], 'a') as file:
        file.write(json.dumps(dict(name=name, state=state, seconds=seconds, reason=first_line))
                   + '\n')
