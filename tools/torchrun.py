"""Runs torchrun with short error messages: python tools/torchrun.py [torchrun's options].

The command line of the tool that the processes run is checked here, once, before anything is
imported. Then only torch is, because every process waits until this one has started.

When a process fails, torchrun prints a report of forty lines and its own traceback. Here the last
line says which process failed first and why, and the exit code is that of this process.

SIGTERM, SIGUSR1, Ctrl-C and SIGHUP, of a terminal that is closed, are forwarded to the processes,
which stop cleanly and exit with a code of their own. torchrun itself would kill them 30 seconds
after most of these, and would die of a SIGUSR1. PyTorch has an option for that since 2.10. Before,
it handles signals only if it runs in the main thread; there it gets a thread of its own, and all
signals are forwarded from here. A second Ctrl-C kills what has not ended a few seconds later.

The processes end with this one, also when it is killed: see mmseg_custom/processes.py.
"""
import argparse
import glob
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from _command_line import alone, check_tool

ENDS = alone('processes')
FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
LEFT_TO_TORCH = (signal.SIGQUIT,)
UNUSED = 'SIGUSR2'  # torch takes no empty list
OPTION = '--signals-to-handle'
GRACE = 3.  # seconds after a second Ctrl-C
# Option -> its name in the scripts, and the form of its values; torchrun takes some words, too.
NUMBERS = {
    '--nproc_per_node': ('the number of processes N', r'0*[1-9]\d*|auto|cpu|gpu|xpu'),
    '--nnodes': ('NNODES', r'\d+(:\d+)?'),
    '--node_rank': ('NODE_RANK', r'\d+'),
    '--master_port': ('PORT', r'\d+'),
}
interrupts: list[float] = []  # when they came


def main() -> None:
    """Launches the processes and waits for them; restarts them RESTARTS times if one dies.

    torchrun's own restarts would also restart a run that was asked to stop.
    """
    check_numbers(sys.argv[1:])
    check_tool(sys.argv[1:])
    from torch.distributed.run import get_args_parser
    parser = get_args_parser()
    has_option = OPTION in parser.format_help()
    for number in FORWARDED if has_option else FORWARDED + LEFT_TO_TORCH:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    # What nohup has set is kept: torch would end with the terminal all the same.
    names = ','.join(number.name for number in LEFT_TO_TORCH
                     if signal.getsignal(number) is not signal.SIG_IGN) or UNUSED
    os.environ[ENDS.LAUNCHER] = str(os.getpid())
    options = parser.parse_args([f'{OPTION}={names}'] * has_option + sys.argv[1:])
    restarts = int(os.environ.get('RESTARTS') or 0)
    code = launch(options, in_thread=not has_option)
    while restarts and code not in (0, ENDS.PREEMPTED, ENDS.INTERRUPTED):
        print(f'restarting, {restarts} restarts left', file=sys.stderr, flush=True)
        restarts -= 1
        code = launch(options, in_thread=not has_option)
    sys.exit(code)


def check_numbers(words: Sequence[str]) -> None:
    """Ends the launcher, with 2, where a number of dist_train.sh and dist_test.sh is not one."""
    for word in words:
        option, _, value = word.partition('=')
        if option in NUMBERS and not re.fullmatch(NUMBERS[option][1], value):
            name = NUMBERS[option][0]
            print(f'error: {name} is {value!r}: expected a number', file=sys.stderr)
            sys.exit(2)


def launch(options: argparse.Namespace, in_thread: bool) -> int:
    """Runs the processes once and returns the exit code of the first that failed, or 0.

    Args:
        options: Parsed command line.
        in_thread: Whether torchrun runs in another thread than this one.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import run
    try:
        if in_thread:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(run, options).result()
        else:
            run(options)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code == ENDS.INTERRUPTED or interrupts and code < 0:
            code = ENDS.INTERRUPTED
            text = 'interrupted; the messages above say what was saved'
        elif code == ENDS.PREEMPTED:
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
                    f'{message_of(failure.message)}')
        with suppress(OSError):  # the terminal may be closed
            print(text, file=sys.stderr, flush=True)
        return code if code > 0 else 128 - code
    except SignalException as error:  # one that is left to torch, which has ended all
        return 128 + error.sigval
    return 0


def message_of(message: str | dict) -> str:
    """Returns the message of a process about its failure, which engine/cli.py has written."""
    return (message['message'] if isinstance(message, dict) else 'see its message above')


def forward(number: int, _frame: object) -> None:
    """Forwards a signal to the processes that this one has started; without any, it ends."""
    if number == signal.SIGINT:
        interrupts.append(time.monotonic())
        if interrupts[-1] - interrupts[0] > ENDS.ONE_KEYSTROKE:
            end = threading.Timer(GRACE, send, (signal.SIGKILL,))
            end.daemon = True
            end.start()
    if not send(number):  # the launchers of other nodes are waited for
        os._exit(128 + number)


def send(number: int) -> int:
    """Sends a signal to the processes that this one has started; returns their number."""
    children = []
    for path in glob.glob('/proc/self/task/*/children'):  # by the thread that has started them
        with open(path) as file:
            children += [int(word) for word in file.read().split()]
    for child in children:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            pass  # It has just ended.
    return len(children)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:  # before there are processes to forward it to
        print('error: interrupted', file=sys.stderr)
        sys.exit(ENDS.INTERRUPTED)
