"""How processes end: their exit codes, and children that end with the process that started them.

The standard library alone: tools/torchrun.py reads this file without the package.
"""
import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from multiprocessing.process import BaseProcess

PREEMPTED = 75  # exit code; EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 128 + signal.SIGINT  # exit code after Ctrl-C, as shells have it
# Seconds in which a second signal belongs to the same Ctrl-C: the terminal signals every process,
# and the launcher signals its own processes again.
ONE_KEYSTROKE = 1.
LAUNCHER = 'INTERNVIT_SEG_LAUNCHER'  # variable with the number of the launcher's process
PR_SET_PDEATHSIG = 1  # of Linux's prctl
STATES = dict(T='stopped', t='stopped by a debugger', D='waiting for a disk', R='computing',
              Z='ended', X='ended')
GRACE_SECONDS = 5.


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Lets the system signal this process when the one that started it ends.

    A process that was killed cannot end its children, and one that is stopped, or is stuck in a
    library, does not notice that its parent is gone. The system watches the thread that has
    started this process, which is the main one for all processes of this package.

    Args:
        parent: Number of the process that has started this one; it may have ended since.
        number: Signal.
    """
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def end_with_launcher() -> None:
    """Lets the system end this process by SIGTERM when tools/torchrun.py ends that has started it.

    A profiler or a script between the two is the parent, and is left to end it.
    """
    launcher = int(os.environ.get(LAUNCHER) or 0)
    if launcher == os.getppid():
        end_with_parent(launcher, signal.SIGTERM)


def state_of(process: int) -> str:
    """Says what a process is doing: 'stopped', 'computing' and the like; 'asleep' if it waits."""
    try:
        with open(f'/proc/{process}/stat', encoding='utf-8', errors='replace') as file:
            letter = file.read().rpartition(')')[2].split()[0]
    except OSError:
        return 'ended'
    return STATES.get(letter, 'asleep')


def end_processes(processes: Iterable[BaseProcess], grace: float = GRACE_SECONDS) -> None:
    """Waits a little for processes that are to end by themselves, and kills those that do not.

    Args:
        processes: Children of this process.
        grace: Seconds that all of them have together.
    """
    processes = list(processes)
    for process in processes:
        process.join(grace / len(processes))
    for process in processes:
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join(GRACE_SECONDS)
