"""A data loader that waits for a worker no longer than a limit, and names it."""
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from multiprocessing import active_children, get_start_method
from multiprocessing.process import BaseProcess
from typing import Any

from mmseg.utils import get_root_logger
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError
from ..processes import state_of
from .stop_signals import shield_worker

LIMIT = 900  # seconds
POLL = 2.  # seconds
FIRST_WORD = 60  # seconds of waiting after which the log says for what


class WatchedLoader(DataLoader):
    """A data loader whose workers end with the run, and hold it up no longer than a limit.

    A worker may be stopped, wait for a disk that does not answer, or decode for ever. torch's own
    ``timeout`` does not see one that is stopped after it has announced a batch, which is fetched
    from it. It names no worker, and counts the time for which a job as a whole was suspended
    (Ctrl-Z, Slurm).

    Args:
        dataset: Data set.
        num_workers: Number of processes that load; 0 loads in this one, without a limit.
        timeout: Seconds that a batch may take; 0 waits for ever.
        names: Function that names the images of samples, by what the sampler gives for them.
        **options: Other options of torch's loader.
    """

    def __init__(self, dataset: Dataset, *, num_workers: int = 0, timeout: float = LIMIT,
                 names: Callable[[Sequence], str] | None = None, **options: Any):
        self.limit = timeout if num_workers else 0
        self._names = names
        self._workers: list[BaseProcess] = []
        if num_workers and get_start_method(allow_none=True) is None:
            # From Python 3.14 on a server would start them: each imports PyTorch anew, and how one
            # ends is not told.
            options.setdefault('multiprocessing_context', 'fork')
        super().__init__(dataset, num_workers=num_workers, worker_init_fn=shield_worker, **options)

    def __iter__(self) -> Iterator:  # type: ignore[override]  # torch names its private class
        """Iterates over the batches.

        Raises:
            InputError: If a batch has not come within the limit.
        """
        before = active_children()
        batches = super().__iter__()
        # torch starts the workers in the order of their numbers; persistent ones are there already.
        started = [child for child in active_children() if child not in before and child.daemon]
        if started:
            self._workers = sorted(started, key=lambda child: int(
                re.split('[-:]', child.name)[-1]))  # Process-3; Process-1:3 in a child
        return self._watched(batches) if self.limit else batches

    def _watched(self, batches: Iterator) -> Iterator:
        watch = _Watch(self.limit, self._culprit)
        watch.start()
        try:
            for number in count():
                watch.awaited = number
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                except Exception as error:
                    if watch.verdict is None:
                        raise
                    raise InputError(watch.verdict) from error
                watch.awaited = None
                yield batch
        finally:
            watch.ended.set()

    def _culprit(self, number: int) -> tuple[BaseProcess, str]:
        """Returns the worker that holds up a batch, and its name.

        torch deals the batches out in turns, but a worker that is stopped holds up the others, too,
        if it has announced one.
        """
        states = [state_of(worker.pid or 0) for worker in self._workers]
        turn = number % self.num_workers
        index = states.index('stopped') if 'stopped' in states else turn
        facts = [f'process {self._workers[index].pid}', states[index]]
        batch = next(islice(self.batch_sampler or (), number, None), None) if self._names else None
        if self._names and index == turn and batch is not None:
            facts.append(f'for {self._names(batch)}')
        return (self._workers[index],
                f'loader worker {index} of {self.num_workers} ({", ".join(facts)})')


class _Watch(threading.Thread):
    """Kills the worker whose batch has not come within the limit, which ends the wait for it.

    Seconds are counted in naps of this thread, which do not count while the job is suspended.

    Args:
        limit: Seconds that a batch may take.
        culprit: Function that returns the worker of a batch, and its name.

    Attributes:
        awaited: Number of the batch that is waited for; None while it is being used.
        verdict: Why the worker was killed.
        ended: Set when the iteration is over.
    """

    def __init__(self, limit: float, culprit: Callable[[int], tuple[BaseProcess, str]]):
        super().__init__(daemon=True, name='watch over loader workers')
        self._limit, self._culprit = limit, culprit
        self.awaited: int | None = None
        self.verdict: str | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        last, waited, nap = None, 0., min(POLL, self._limit / 3)
        while not self.ended.wait(nap):
            awaited = self.awaited
            before = waited = waited if awaited == last else 0.
            last = awaited
            if awaited is None:
                continue
            waited += nap
            if waited >= self._limit:
                worker, name = self._culprit(awaited)
                self.verdict = (
                    f'{name} has delivered nothing for {waited:.3g} s: look at '
                    'its disk and its image, and continue it if it is stopped (kill -CONT); '
                    'data.timeout sets the limit in seconds, 0 waits for ever, '
                    'data.workers_per_gpu=0 loads in the main process')
                worker.kill()  # torch raises an error for that in the main thread
                return
            if before < FIRST_WORD <= waited:
                get_root_logger().warning(
                    'waiting for data: %s has delivered nothing for %.0f s; the run ends after '
                    '%.0f s (data.timeout)', self._culprit(awaited)[1], waited, self._limit)
