"""TensorBoard's writer of events, whose thread dies of a full disk with a traceback."""
import threading
from functools import cache

WRITER = '_AsyncWriterThread'


@cache
def quiet_event_files() -> None:
    """Leaves errors of the disk in TensorBoard's thread to the hook that writes the events.

    The thread stores its error for the next call, which raises it where it can be handled, and lets
    Python print it all the same. Nothing else tells Python not to. Can go when TensorBoard does.
    """
    before = threading.excepthook

    def excepthook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == WRITER):
            before(args)

    threading.excepthook = excepthook
