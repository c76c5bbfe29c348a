"""Locks a work dir: a second training run in it would overwrite the checkpoints of the first."""
import fcntl
import os
import socket
from contextlib import suppress

from ..errors import InputError

LOCK = '.lock'


def lock_work_dir(work_dir: str) -> None:
    """Locks the work dir for this process until it ends, however it ends.

    The lock is a record lock: the kernel releases it when the process dies, and forked loader
    workers do not inherit it. The file stays; its content is valid only while it is locked.

    Args:
        work_dir: Existing folder, which only one process of the job may lock.

    Raises:
        InputError: If another process holds the lock.
    """
    path = os.path.join(work_dir, LOCK)
    # It is never closed, because closing any descriptor of the file would release the lock.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 200).decode(errors='replace').strip() or 'an unknown process'
        os.close(descriptor)
        raise InputError(f'work dir {work_dir} is in use by {holder}: wait for its end, or choose '
                         'another --work-dir') from error
    except PermissionError as error:
        os.close(descriptor)
        raise InputError(f'work dir {work_dir} is in use, or cannot be locked ({error.strerror}): '
                         'choose another --work-dir') from error
    os.ftruncate(descriptor, 0)
    with suppress(OSError):  # On a full disk it is locked all the same, by an unknown process.
        os.pwrite(descriptor, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)
