"""Work of the host on the results of a GPU, in a second thread, while the GPU goes on."""
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch


class Background:
    """Calls functions in a second thread, in the order in which they are put.

    On the CPU there is nothing to overlap with, since the network takes all cores: :meth:`put`
    calls the function itself.

    The first function that raises an error ends the work: none is called after it, and the error is
    raised in the calling thread, by :meth:`put` or at the end of the ``with`` block. If the block
    raises an error of its own, the functions that were put before are finished first, and their
    error is the one that is raised. Only Ctrl-C does not wait for them.

    Args:
        device: Device that computes, 'cuda' or 'cpu'.
        limit: Number of functions that may be put and not finished; :meth:`put` waits for the
            oldest.
    """

    def __init__(self, device: str, limit: int = 2):
        self._pool, self._limit = _thread_for(device), limit
        self._calls: deque[Future] = deque()
        self._failed = False

    def put(self, function: Callable[[], object]) -> None:
        """Has a function called.

        Raises:
            Exception: What an earlier function has raised.
        """
        if self._pool is None:
            function()
            return
        while self._calls and (len(self._calls) >= self._limit or self._calls[0].done()):
            self._calls.popleft().result()
        self._calls.append(self._pool.submit(self._call, function))

    def _call(self, function: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            function()
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> 'Background':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._pool is None:
            return
        finishes = kind is None or not issubclass(kind, KeyboardInterrupt)
        try:
            while finishes and self._calls:
                self._calls.popleft().result()
        except BaseException:
            finishes = False
            raise
        finally:
            self._pool.shutdown(wait=finishes, cancel_futures=True)


def _thread_for(device: str) -> ThreadPoolExecutor | None:
    """Returns a pool of one thread, which uses the GPU of the calling one; None for the CPU."""
    if device == 'cpu':
        return None
    return ThreadPoolExecutor(1, 'background', torch.cuda.set_device,
                              (torch.cuda.current_device(),))
