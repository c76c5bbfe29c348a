"""Runs many small jobs in several processes, with a progress bar."""
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

from mmseg.utils import get_root_logger
from tqdm import tqdm

from ..errors import InputError, refuse_failed

Result = TypeVar('Result')


def in_processes(function: Callable[[Any], Result], jobs: Sequence, workers: int, title: str,
                 initializer: Callable | None = None, initargs: tuple = ()) -> Iterator[Result]:
    """Calls a function on each job, and yields the results in their order.

    Args:
        function: Function at the top level of a module.
        jobs: Arguments of the calls.
        workers: Number of processes; they are forked, so that they start at once.
        title: Title of the progress bar.
        initializer: Function that each process calls first.
        initargs: Arguments of ``initializer``; they are inherited, not pickled.

    Raises:
        InputError: If a process was killed.
    """
    pool = ProcessPoolExecutor(max(1, min(workers, len(jobs))),
                               multiprocessing.get_context('fork'), _start,
                               (os.getpid(), initializer, initargs))
    try:
        results = pool.map(function, jobs, chunksize=max(1, min(32, len(jobs) // (4 * workers))))
        yield from tqdm(results, title, len(jobs), unit='', leave=False)
    except BrokenProcessPool as error:
        raise InputError(f'{title}: a worker process was killed, most likely for lack of memory; '
                         'run it again with fewer --workers') from error
    finally:
        pool.shutdown(cancel_futures=True)


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
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, which a killed parent cannot do itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
