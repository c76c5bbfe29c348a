"""The signals that stop a run, and the loader workers that outlive them."""
import atexit
import multiprocessing
import signal
import sys
from types import TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def shield_worker(_worker: int) -> None:
    """Keeps a loader worker alive until the last step when the whole job is signalled.

    The worker ends with its loader, or with its main process: see :func:`end_workers`. What its
    samples raise goes to the main process; what its threads raise because that has ended is no
    news.
    """
    ignore_signals()
    sys.excepthook = _say_nothing_of_lost_peers


def end_workers() -> None:
    """Ends shielded workers that are still alive when the process exits.

    After an error, something may still hold their loader. Python would then end them by SIGTERM,
    which they ignore, and wait for them forever.
    """
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for a killed worker
    for worker in workers:
        worker.kill()


def _say_nothing_of_lost_peers(kind: type[BaseException], error: BaseException,
                              trace: TracebackType | None) -> None:
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


# Whoever shields workers needs it. It runs before multiprocessing's own, which torch's import has
# registered.
atexit.register(end_workers)


def ignore_signals() -> None:
    """Ignores the signals for the rest of this process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
