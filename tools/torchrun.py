"""torchrun with a short end: python tools/torchrun.py [torchrun's options].

It imports torch alone: each second here is one before any process starts.

torchrun prints a report of forty lines and its own traceback when a process fails. Here the last
line says which process failed first and why, and the exit code is that process's.

SIGTERM and SIGUSR1 are handed on to the processes, which end in good order with a code of their
own; torchrun by itself gives them 30 seconds after a SIGTERM, and dies of a SIGUSR1.
"""
import argparse
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

HANDED_ON = (signal.SIGTERM, signal.SIGUSR1)
PREEMPTED = 75  # see engine/preemption.py


def main() -> None:
    """Launches the processes and waits for them; starts them anew RESTARTS times if one dies.

    torchrun's own restarts would start a run anew that was asked to stop.
    """
    for number in HANDED_ON:
        signal.signal(number, hand_on)
    options = parse_args(['--signals-to-handle=SIGINT,SIGHUP,SIGQUIT', *sys.argv[1:]])
    restarts = int(os.environ.get('RESTARTS') or 0)
    code = launch(options)
    while restarts and code not in (0, PREEMPTED):
        print(f'starting again, {restarts} restarts left', file=sys.stderr, flush=True)
        restarts -= 1
        code = launch(options)
    sys.exit(code)


def launch(options: argparse.Namespace) -> int:
    """Runs the processes once; returns the exit code of the first that failed, or 0."""
    try:
        run(options)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code == PREEMPTED:
            text = 'the run was stopped by a signal and can go on with --auto-resume'
        elif code < 0:
            text = f'the process of rank {rank} was killed by signal {-code}'
            if code == -signal.SIGKILL:
                text += ', as the system does when memory runs out (see dmesg)'
        else:
            text = (f'the process of rank {rank} failed first, with exit code {code}: '
                    f'{reason_of(failure)}')
        print(text, file=sys.stderr, flush=True)
        return code if code > 0 else 128 - code
    return 0


def reason_of(failure: ProcessFailure) -> str:
    """What a process has said of its failure (engine/cli.py writes it down)."""
    message = failure.message
    return (message['message'] if isinstance(message, dict) else 'see its message above')


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
