"""Pools of processes end within limits, whatever happens to one of them; none is left."""
import multiprocessing
import os
import signal
import time

import pytest

from mmseg_custom.datasets import workers
from mmseg_custom.datasets.workers import in_processes
from mmseg_custom.errors import InputError


def job(what: str) -> str:
    """Returns its argument, once it has done to its process what that says."""
    if what in ('SIGSTOP', 'SIGKILL'):
        os.kill(os.getpid(), signal.Signals[what])
    if what == 'hang':
        time.sleep(60)
    return what


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(workers, 'POLL', 0.1)
    monkeypatch.setattr(workers, 'LIMIT', 0.3)
    monkeypatch.setattr(workers, 'GRACE', 0.2)
    yield
    end = time.monotonic() + 30
    while multiprocessing.active_children():  # the system takes its time to end large ones
        assert time.monotonic() < end, multiprocessing.active_children()
        time.sleep(0.05)


def test_results_come_in_the_order_of_the_jobs():
    jobs = [str(number) for number in range(40)]
    assert list(in_processes(job, jobs, 2, 'jobs')) == jobs


@pytest.mark.parametrize(('what', 'message'), [
    ('SIGSTOP', 'is stopped'), ('hang', 'is asleep'), ('SIGKILL', 'was killed')])
def test_a_process_that_does_nothing_ends_the_jobs(what, message):
    with pytest.raises(InputError, match=message):
        list(in_processes(job, ['a', what, 'b'], 2, 'jobs'))


def test_an_iterator_that_is_closed_leaves_no_process():
    results = in_processes(job, ['a', 'b', 'hang', 'hang'], 2, 'jobs')
    assert next(results) == 'a'
    results.close()
