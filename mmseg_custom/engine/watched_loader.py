"""A data loader that waits for its workers up to a limit, and names the one it waits for."""
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

from mmseg.utils import get_root_logger
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError
from ..processes import state_of
from .stop_signals import shield_worker

LIMIT = 900  # seconds
POLL = 5  # seconds; torch, too, looks after its workers so often
FIRST_WORD = 60  # seconds of waiting after which the log says for what
TIMED_OUT = 'DataLoader timed out'  # torch's own words


class WatchedLoader(DataLoader):
    """A data loader whose workers end with the run, and hold it up no longer than a limit.

    A worker may be stopped, wait for a disk that does not answer, or decode for ever. torch's own
    ``timeout`` names no worker, and counts the time for which a job as a whole was suspended
    (Ctrl-Z, Slurm); here the waits are short, and those that bring nothing are counted.

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
        super().__init__(dataset, num_workers=num_workers, timeout=min(self.limit, POLL),
                         worker_init_fn=shield_worker, **options)

    def __iter__(self) -> Iterator:
        """Iterates over the batches.

        Raises:
            InputError: If a batch has not come within the limit.
        """
        before = active_children()
        batches = super().__iter__()
        # torch starts the workers in the order of their numbers; persistent ones are there already.
        started = [child for child in active_children() if child not in before and child.daemon]
        if started:
            self._workers = sorted(started, key=lambda child: int(child.name.rpartition('-')[2]))
        return self._watched(batches) if self.limit else batches

    def _watched(self, batches: Iterator) -> Iterator:
        for number in count():
            try:
                batch = self._next(batches, number)
            except StopIteration:
                return
            yield batch

    def _next(self, batches: Iterator, number: int) -> Any:
        """Returns the next batch, whose number is counted from 0 in this iteration."""
        waited = 0.
        while True:
            try:
                return next(batches)
            except RuntimeError as error:
                if TIMED_OUT not in str(error):
                    raise
                before, waited = waited, waited + self.timeout
                if waited >= self.limit:
                    raise InputError(
                        f'{self._describe(number)} has delivered nothing for {waited:.3g} s: '
                        'look at its disk and its image, and continue it if it is stopped (kill '
                        '-CONT); data.timeout sets the limit in seconds, 0 waits for ever, '
                        'data.workers_per_gpu=0 loads in the main process') from None
                if before < FIRST_WORD <= waited:
                    get_root_logger().warning('waiting for data: %s has delivered nothing for '
                                              '%.0f s; the run ends after %.0f s (data.timeout)',
                                              self._describe(number), waited, self.limit)

    def _describe(self, number: int) -> str:
        """Names the worker of a batch: torch deals the batches out in turns."""
        index = number % self.num_workers
        process = self._workers[index].pid if index < len(self._workers) else None
        facts = [] if process is None else [f'process {process}', state_of(process)]
        batch = next(islice(self.batch_sampler or (), number, None), None) if self._names else None
        if self._names and batch is not None:
            facts.append(f'for {self._names(batch)}')
        return f'loader worker {index} of {self.num_workers} ({", ".join(facts)})'
