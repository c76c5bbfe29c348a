"""A disk that is slow, or full, for checkpoints that are written in the background."""
import errno
import os
import threading
import time

from mmcv.runner import HOOKS, BaseRunner, Hook


@HOOKS.register_module()
class SlowWrites(Hook):
    """Lets the disk take its time.

    Args:
        seconds: Seconds that each flush takes.
        slow: Part of the path of checkpoints for which it does.
        full: Part of the path of checkpoints for which there is no room.
    """

    def __init__(self, seconds: float = 0.0, slow: str = '', full: str = 'none'):
        self.seconds, self.slow, self.full = seconds, slow, full

    def before_run(self, runner: BaseRunner) -> None:
        flush = os.fsync

        def slow_flush(descriptor: int) -> None:
            name = threading.current_thread().name
            if name.startswith('saving '):
                time.sleep(self.seconds if self.slow in name else 0)
                if self.full in name:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(descriptor)
        os.fsync = slow_flush
