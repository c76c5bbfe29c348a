"""torchrun with a short end: ``python -m mmseg_custom.distributed.torchrun [torchrun's options]``.

torchrun prints a report of forty lines and its own traceback when a process fails. The process has
said what was wrong; here the launcher adds which one it was, and ends with the same exit code.

SIGTERM and SIGUSR1 are handed on to the processes, which end in good order with a code of their
own; torchrun by itself gives them 30 seconds after a SIGTERM, and dies of a SIGUSR1.
"""
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

HANDED_ON = (signal.SIGTERM, signal.SIGUSR1)
PREEMPTED = 75  # see engine/preemption.py


def main() -> None:
    """Launches the processes and waits for them."""
    for number in HANDED_ON:
        signal.signal(number, hand_on)
    try:
        run(parse_args(['--signals-to-handle=SIGINT,SIGHUP,SIGQUIT', *sys.argv[1:]]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code == PREEMPTED:
            print('the run was stopped by a signal and can go on with --auto-resume',
                  file=sys.stderr)
            sys.exit(code)
        ended = f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'
        print(f'the process of rank {rank} {ended}; see its message above', file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)


def hand_on(number: int, _frame: object) -> None:
    """Sends a signal to the processes that this one has started."""
    with open(f'/proc/{os.getpid()}/task/{os.getpid()}/children') as file:
        children = [int(word) for word in file.read().split()]
    for child in children:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            pass  # it has just ended


if __name__ == '__main__':
    main()
