"""What all processes of a host would say when they end is said by one of them.

Processes that fail alike do not wait for each other: the first binds an address made of its text,
which no other can bind as long as it lives, and Linux frees when it ends, however it ends.
"""
import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256

LINGER = 1.0  # seconds in which processes that fail alike do so


def rank_by_launcher() -> tuple[int, int]:
    """Returns rank and number of the processes, as the launcher says before they form a group."""
    for rank, ranks in (('RANK', 'WORLD_SIZE'), ('SLURM_PROCID', 'SLURM_NTASKS'),
                        ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE')):
        with suppress(KeyError, ValueError):
            return int(os.environ[rank]), int(os.environ[ranks])
    return 0, 1


@contextmanager
def first_to_say(text: str, linger: float = LINGER) -> Iterator[bool]:
    """Gives whether no other process that the launcher started on this host is saying a text.

    Args:
        text: What is to be said in the block.
        linger: Seconds that the first one stays after the block, for others to find out.
    """
    if rank_by_launcher()[1] == 1:
        yield True
        return
    digest = sha256(text.encode(errors='replace')).hexdigest()[:32]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mark:
        try:  # An address that begins with a zero byte is no file.
            mark.bind(f'\0said-{os.getuid()}-{os.getppid()}-{digest}')
        except OSError as error:
            yield error.errno != errno.EADDRINUSE
            return
        yield True
        time.sleep(linger)
