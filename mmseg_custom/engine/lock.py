"""One training run a work dir: a second one would overwrite the checkpoints of the first."""
import fcntl
import os
import socket

from ..errors import InputError

LOCK = '.lock'


def lock_work_dir(work_dir: str) -> None:
    """Takes the work dir for this process until it ends, however it ends.

    A record lock is what the kernel takes back when its process dies, and what forked workers of
    the loader do not hold on to. The file stays; what it says counts only while it is locked.

    Args:
        work_dir: It is there. Call this in one process of the job.

    Raises:
        InputError: If another process has it.
    """
    path = os.path.join(work_dir, LOCK)
    # Never closed: closing any descriptor of the file would give the lock back.
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
    os.pwrite(descriptor, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)
