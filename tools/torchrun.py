"""torchrun with a short end: python tools/torchrun.py [torchrun's options].

torchrun prints a report of forty lines and its own traceback when a process fails. The process has
said what was wrong; here the launcher adds which one it was, and ends with the same exit code. It
imports torch alone: each second here is one before any process starts.
"""
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run


def main() -> None:
    """Launches the processes and waits for them."""
    try:
        run(parse_args(sys.argv[1:]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        ended = f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'
        print(f'the process of rank {rank} {ended}; see its message above', file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)


if __name__ == '__main__':
    main()
