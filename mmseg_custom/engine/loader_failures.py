"""Failures of loader workers and of the shared memory that they pass batches in."""
import re

from ..errors import words_of

SHARED = ('out of shared memory', 'unable to write to file', 'unable to open shared memory',
          'unable to resize file', 'unable to allocate shared memory', 'unable to mmap',
          "No space left on device: '/torch", 'Bus error')
FEWER = 'or set data.workers_per_gpu lower, 0 to load in the main process'
FILES = ('received 0 items of ancdata', 'Too many open files')


def explain_loader(error: BaseException) -> str | None:
    """Returns the line for a failure of a loader's processes; None for any other error."""
    if isinstance(error, MemoryError):
        return (f'no memory is left ({words_of(error)}): give the job more, take fewer images a '
                f'step, {FEWER}')
    if not isinstance(error, (RuntimeError, OSError)):
        return None
    # torch says which worker is gone, and, in the error before, of which signal.
    text = ' '.join(map(str, filter(None, (error.__cause__ or error.__context__, error))))
    if any(words in text for words in SHARED):
        return ('shared memory is full, through which loader workers pass their batches: give '
                '/dev/shm more room (`mount -o remount,size=8G /dev/shm`, `docker run '
                f'--shm-size=8g`), {FEWER}')
    if any(words in text for words in FILES):
        return ('too many open files, which loader workers pass their batches by: raise the limit '
                f'(`ulimit -n 65536`), {FEWER}')
    found = re.search(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)', text)
    if found is None:
        return None
    killed = re.search(r'killed by signal: (\w[\w ]*)', found[2])
    if killed is not None and killed[1] != 'Killed':
        how = f'ended by the signal "{killed[1]}"'
    else:
        how = 'killed' if killed else 'ended without a word'
    return (f'loader worker {found[1]} was {how}, most often for lack of memory (`dmesg` tells): '
            f'give the job more, {FEWER}')
