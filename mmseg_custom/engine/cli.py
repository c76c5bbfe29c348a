"""Runs a command-line tool: errors in one line, exit codes, the end of a process of several."""
import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import torch.distributed as dist
from mmcv.runner import get_dist_info

from ..checkpoint.integrity import finish_checks
from ..distributed.failures import explain_failure, explain_lost_rank, lost_rank
from ..distributed.said_once import first_to_say, rank_by_launcher
from ..errors import InputError, one_line
from ..processes import INTERRUPTED
from .determinism import NO_KERNEL
from .loader_failures import explain_loader
from .stop_signals import end_workers

NOBODY_READS = 128 + signal.SIGPIPE  # exit code where shells have it


def run(main: Callable[[], None]) -> None:
    """Runs a tool; reports an error in the input in one line, with exit code 1; Ctrl-C with 130.

    Other errors are raised with their traceback; with ``--debug``, or at log level DEBUG, all are.
    """
    try:
        main()
        finish_checks()
        _flush()
        if get_dist_info()[1] > 1:
            _leave(0)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(NOBODY_READS)
        if isinstance(error, KeyboardInterrupt) and 'RANK' in os.environ:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher passes Ctrl-C on as well
        message = explain(error)
        debug = '--debug' in sys.argv or logging.getLogger('mmseg').level == logging.DEBUG
        world_size = get_dist_info()[1]
        rank, ranks = rank_by_launcher()
        if message is None and world_size > 1 and lost_rank(error):
            message = explain_lost_rank(error)
            time.sleep(3)  # The launcher must hear first from the process that failed first.
        tell_launcher(message or f'{type(error).__name__}: {error}')
        shows_traceback = message is None or debug
        if ranks == world_size == 1 and shows_traceback:
            raise
        _flush()
        who = f'error [rank {rank}]' if ranks > 1 else 'error'
        text = traceback.format_exc() if shows_traceback else f'{message}\n'
        with first_to_say(text) as is_first:
            if is_first:
                print(text if shows_traceback else f'{who}: {text}', end='', file=sys.stderr,
                      flush=True)
        code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        if world_size > 1:  # The others may be waiting in a collective; the launcher ends them.
            _leave(code)
        sys.exit(code)
    except SystemExit as end:
        if get_dist_info()[1] > 1 and isinstance(end.code, int):
            _leave(end.code)
        raise
    finally:
        end_workers()
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def _nobody_reads() -> bool:
    """Whether a reader of what is printed has ended, as `head` does; what is left is dropped then.

    Python prints it when it ends, and would complain.
    """
    poll, gone = select.poll(), False
    for number in (1, 2):
        poll.register(number, 0)
    for number, event in poll.poll(0):
        if event == select.POLLERR:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            gone = True
    return gone


def _leave(code: int) -> NoReturn:
    """Ends a process of several without taking its objects apart, the process group among them.

    The end of a group of nccl waits for ranks that may be in a collective. That of gloo joins a
    thread while it holds Python's lock, for which that thread may be waiting; and a thread of gloo
    that frees the tensors of the last collective while Python ends is one more way to fail: PyTorch
    2.11 then aborts ("terminate called without an active exception").
    """
    end_workers()
    logging.shutdown()
    _flush()
    os._exit(code)


def _flush() -> None:
    """Writes what is printed; a stream that was closed at the start is None."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def explain(error: BaseException) -> str | None:
    """Returns the line for an error in the input or of a GPU; None for any other error."""
    if isinstance(error, KeyboardInterrupt):
        return ': '.join(filter(None, ('interrupted', str(error))))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        if isinstance(cause, OSError) and cause.filename is not None:
            return one_line(f'{cause.filename}: {cause.strerror}')
        if (line := explain_failure(cause) or explain_loader(cause)) is not None:
            return line
        if isinstance(cause, RuntimeError) and NO_KERNEL in str(cause):
            return (f'--deterministic: {str(cause).split()[0]} has no deterministic kernel on this '
                    'GPU; train with --no-deterministic')
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def tell_launcher(message: str) -> None:
    """Writes why this process fails to the file from which torchrun reports it."""
    path = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if path:
        with suppress(OSError), open(path, 'w') as file:
            json.dump(dict(message=dict(message=message.strip().splitlines()[0], extraInfo=dict(
                py_callstack='', timestamp=str(int(time.time()))))), file)
