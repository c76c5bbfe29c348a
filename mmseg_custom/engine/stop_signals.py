"""The signals that stop a run, and the loader workers that outlive them."""
import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from mmseg.utils import get_root_logger

from ..processes import INTERRUPTED, ONE_KEYSTROKE, end_processes, end_with_parent

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)  # SIGHUP: the terminal is closed
NOTHING_DONE = 'nothing is done yet, so that there is nothing to save'


class StopRequested(BaseException):
    """A part of a run is left, on all ranks, because one was signalled.

    Attributes:
        signal: The signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.signal = number


def heard() -> list[int]:
    """Returns the signals that ask a run to stop: all, but for SIGHUP where nohup has set that."""
    return [number for number in SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]


def shield_worker(_worker: int) -> None:
    """Keeps a loader worker alive until the last step when the whole job is signalled.

    The worker ends with its loader, or with its main process, however that ends. What its samples
    raise goes to the main process; what its threads raise because that has ended is no news.
    """
    ignore_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles it
    end_with_parent(os.getppid())
    sys.excepthook = _say_nothing_of_lost_peers


def end_workers() -> None:
    """Kills the loader workers that are still alive when a run ends.

    Something may still hold their loader: an error, or a loop without end. Python would then end
    them by SIGTERM, which they ignore, and wait for them forever.
    """
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if not workers:
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises for a killed worker
    for worker in workers:
        worker.kill()
    end_processes(workers)
    signal.signal(signal.SIGCHLD, handler)


@contextmanager
def nothing_done() -> Iterator[None]:
    """Lets Ctrl-C in the block say that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(NOTHING_DONE) from None


@contextmanager
def stop_after_batch() -> Iterator[list[float]]:
    """Yields a list that a stop signal fills, to end a loop of a test after its batch.

    A second signal ends the loop at once.
    """
    asked: list[float] = []

    def note(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked and now - asked[0] > ONE_KEYSTROKE:
            raise KeyboardInterrupt
        if not asked:
            get_root_logger().warning('%s: stopping after the current batch; a second signal stops '
                                      'at once', signal.Signals(number).name)
            asked.append(now)

    with handled_by(note):
        yield asked


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], object] | signal.Handlers
                ) -> Iterator[None]:
    """Replaces the handlers of the stop signals, in the main thread, which receives them."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler)
              for number in (signal.SIGINT, *heard())} if here else {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _say_nothing_of_lost_peers(kind: type[BaseException], error: BaseException,
                              trace: TracebackType | None) -> None:
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


# Whoever shields workers needs it. It runs before multiprocessing's own, which torch's import has
# registered.
atexit.register(end_workers)


def ignore_signals() -> None:
    """Ignores the signals that ask to stop for the rest of this process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Interrupts:
    """Ctrl-C in a training: the first one asks, a second one ends the process at once.

    Python handles a signal when the main thread comes back from what it computes, writes or waits
    for. A thread of its own sees the second signal, so that nothing can hold it up; files are
    written under other names until they are whole, so that nothing half-written counts.
    """

    def __init__(self, asked: Callable[[], None]):
        """Installs the handler; called in the main thread.

        Args:
            asked: Function that is called at the first signal, in the main thread; what it raises
                is raised there.
        """
        self._asked = asked
        self._seen = False
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGINT, self._first)
        threading.Thread(target=self._end_at_second, args=(reader,), daemon=True).start()

    def close(self) -> None:
        """Gives the signal back to the handler before; called in the main thread."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, self._before)
        os.close(self._writer)  # which ends the thread

    def _first(self, _number: int, _frame: object) -> None:
        if not self._seen:
            self._seen = True
            self._asked()

    def _end_at_second(self, reader: int) -> None:
        """Ends the process at the second Ctrl-C, unless another handler has taken over."""
        first: float | None = None
        while data := os.read(reader, 1):
            now = time.monotonic()
            if data[0] != signal.SIGINT or signal.getsignal(signal.SIGINT) != self._first:
                continue
            if first is None:
                first = now
            elif now - first > ONE_KEYSTROKE:
                if int(os.environ.get('RANK', 0)) == 0:
                    os.write(2, b'\nerror: interrupted again: ended at once\n')
                os._exit(INTERRUPTED)  # the system ends the workers
