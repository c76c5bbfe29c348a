"""Runs torchrun with short error messages: python tools/torchrun.py [torchrun's options].

Only torch is imported, because every process waits until this one has started.

When a process fails, torchrun prints a report of forty lines and its own traceback. Here the last
line says which process failed first and why, and the exit code is that of this process.

SIGTERM and SIGUSR1 are forwarded to the processes, which stop cleanly and exit with a code of
their own. torchrun itself would kill them 30 seconds after a SIGTERM, and would die of a SIGUSR1.
"""
import argparse
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

FORWARDED = (signal.SIGTERM, signal.SIGUSR1)
PREEMPTED = 75  # see engine/preemption.py


def main() -> None:
    """Launches the processes and waits for them; restarts them RESTARTS times if one dies.

    torchrun's own restarts would also restart a run that was asked to stop.
    """
    for number in FORWARDED:
        signal.signal(number, forward)
    options = parse_args(['--signals-to-handle=SIGINT,SIGHUP,SIGQUIT', *sys.argv[1:]])
    restarts = int(os.environ.get('RESTARTS') or 0)
    code = launch(options)
    while restarts and code not in (0, PREEMPTED):
        print(f'restarting, {restarts} restarts left', file=sys.stderr, flush=True)
        restarts -= 1
        code = launch(options)
    sys.exit(code)


def launch(options: argparse.Namespace) -> int:
    """Runs the processes once and returns the exit code of the first that failed, or 0."""
    try:
        run(options)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code == PREEMPTED:
            text = 'the run was stopped by a signal and can be resumed with --auto-resume'
        elif code < 0:
            text = f'the process of rank {rank} was killed by signal {-code}'
            if code == -signal.SIGKILL:
                text += ', as the system does when memory runs out (see dmesg)'
            elif code == -signal.SIGABRT:
                text += (', as nccl does when a process has waited dist_params.timeout_minutes for '
                         'the others; see its message above')
        else:
            text = (f'the process of rank {rank} failed first, with exit code {code}: '
                    f'{message_of(failure)}')
        print(text, file=sys.stderr, flush=True)
        return code if code > 0 else 128 - code
    return 0


def message_of(failure: ProcessFailure) -> str:
    """Returns the message of a process about its failure, which engine/cli.py has written."""
    message = failure.message
    return (message['message'] if isinstance(message, dict) else 'see its message above')


def forward(number: int, _frame: object) -> None:
    """Forwards a signal to the processes that this one has started."""
    with open(f'/proc/{os.getpid()}/task/{os.getpid()}/children') as file:
        children = [int(word) for word in file.read().split()]
    for child in children:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            pass  # It has just ended.


if __name__ == '__main__':
    main()
