"""Runs many small jobs in several processes, with a progress bar."""
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from mmseg.utils import get_root_logger

from ..errors import InputError, refuse_failed
from ..processes import end_processes, end_with_parent, state_of
from ..progress import progress_bar

Result = TypeVar('Result')
LIMIT = 900.  # seconds without a result, after which the jobs are given up
POLL = 5.  # seconds
GRACE = 5.  # seconds that processes have to end, once nothing is left to do
MOST_AT_ONCE = 8  # jobs that a process takes together


def in_processes(function: Callable[[Any], Result], jobs: Sequence, workers: int, title: str,
                 initializer: Callable | None = None, initargs: tuple = ()) -> Iterator[Result]:
    """Calls a function on each job, and yields the results in their order.

    The processes end with this one, however it ends, and at the latest a few seconds after the
    last result is taken, or the iterator is closed.

    Args:
        function: Function at the top level of a module.
        jobs: Arguments of the calls.
        workers: Number of processes; they are forked, so that they start at once.
        title: Title of the progress bar.
        initializer: Function that each process calls first.
        initargs: Arguments of ``initializer``; they are inherited, not pickled.

    Raises:
        InputError: If a process was killed, or none has done anything for 15 minutes.
    """
    before = multiprocessing.active_children()
    pool = ProcessPoolExecutor(max(1, min(workers, len(jobs))),
                               multiprocessing.get_context('fork'), _start,
                               (os.getpid(), initializer, initargs))
    size = max(1, min(MOST_AT_ONCE, len(jobs) // (4 * workers)))
    parts = [pool.submit(_call_all, function, jobs[start:start + size])
             for start in range(0, len(jobs), size)]
    done: list[Future] = []
    for part in parts:
        part.add_done_callback(done.append)
    processes = [child for child in multiprocessing.active_children() if child not in before]
    try:
        results = (result for part in parts for result in _await(part, done, processes, title))
        with progress_bar(len(jobs), 'file', title, leave=False) as bar:
            for result in results:
                bar.update()
                yield result
    except BrokenProcessPool as error:
        raise InputError(f'{title}: a worker process was killed, most likely for lack of memory; '
                         'run it again with fewer --workers') from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        end_processes(processes, GRACE)  # one that is stopped would be waited for
        pool.shutdown()


def _await(part: Future, done: Sequence[Future], processes: Sequence[BaseProcess], title: str
           ) -> list:
    """Returns the results of a part, as long as any part is done now and then.

    Raises:
        InputError: If none is.
    """
    waited, before = 0., len(done)
    while True:
        try:  # In short waits: a job that was suspended as a whole is not given up when it goes on.
            return part.result(POLL)
        except TimeoutError:
            if part.done():  # its own error, or it is done just now
                return part.result()
        waited = waited + POLL if len(done) == before else 0.
        before = len(done)
        if waited >= LIMIT:
            states = ', '.join(f'process {one.pid} is {state_of(one.pid or 0)}'
                               for one in processes if one.is_alive())
            raise InputError(f'{title}: nothing was done for {waited:.3g} s ({states}): look at '
                             'the disk, and run it again')


def _call_all(function: Callable[[Any], Result], jobs: Sequence) -> list[Result]:
    return [function(job) for job in jobs]


def convert_all(convert: Callable[[Any], object], jobs: Sequence, workers: int,
                title: str) -> int:
    """Converts files in several processes; goes on after one that cannot be converted.

    Args:
        convert: Function at the top level of a module.
        jobs: Arguments of its calls.
        workers: Number of processes.
        title: Title of the progress bar.

    Returns:
        Number of files.

    Raises:
        InputError: At the end, if some could not be converted, each of which is in the log; or if a
            process was killed.
    """
    if not jobs:
        return 0
    failed = [message for message in in_processes(partial(_message_of, convert), jobs, workers,
                                                  title) if message]
    for message in failed:
        get_root_logger().error('failed: %s', message)
    refuse_failed(failed, len(jobs), 'files')
    return len(jobs)


def _message_of(convert: Callable[[Any], object], job: Any) -> str | None:
    """Calls the function; returns what is wrong with its file."""
    try:
        convert(job)
        return None
    except InputError as error:
        return str(error)


def _start(parent: int, initializer: Callable | None, initargs: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    end_with_parent(parent)
    if initializer is not None:
        initializer(*initargs)
