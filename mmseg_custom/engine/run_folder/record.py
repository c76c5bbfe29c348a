"""The starts of a run, in ``run.json`` in its work dir, beside its logs and checkpoints."""
import json
import os.path as osp
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ...evaluation.run_info import hardware
from ...files import atomic_write
from ...schema import array, integer, number, read_json, record, text
from ..run import Run

NAME = 'run.json'
RUNNING, FINISHED, STOPPED, FAILED, KILLED = 'running', 'finished', 'stopped', 'failed', 'killed'
_START = dict(
    started=text, written=text, first=integer(0), done=integer(0), seconds=number(0), state=text,
    reason=text, command=text, host=text, hardware=text, processes=integer(1))
_RECORD = record(dict(starts=array(record(_START, others=None), 'the starts of a run')))


@dataclass(frozen=True)
class Start:
    """One start of a run.

    Attributes:
        started: Local time.
        written: Local time when this was written.
        first: Number of iterations done before.
        done: Number of iterations done.
        seconds: Seconds from the start until this was written.
        state: 'running', 'finished', 'stopped' (by a signal), 'failed' or 'killed' (found running
            by the next start).
        reason: Reason of its end, in words; empty while it runs.
        command: Command line of a process.
        host: Name of the host of rank 0.
        hardware: GPU of rank 0, else its CPU.
        processes: Number of processes.
    """
    started: str
    written: str
    first: int
    done: int
    seconds: float
    state: str
    reason: str
    command: str
    host: str
    hardware: str
    processes: int

    @classmethod
    def now(cls, run: Run, first: int, command: str) -> 'Start':
        """Describes the start of this process."""
        found = hardware(run.device)
        return cls(started=local_time(), written=local_time(), first=first, done=first, seconds=0.,
                   state=RUNNING, reason='', command=command, host=socket.gethostname(),
                   hardware=str(found.get('gpu') or f'{found["cpu"]} ({found["cpus"]} cores)'),
                   processes=run.batch.ranks)


def read_starts(folder: str) -> list[Start]:
    """Returns the starts of the run in a folder, the last one first ended by what killed it."""
    content = read_json(osp.join(folder, NAME), _RECORD) or dict(starts=[])
    return [replace(start, state=KILLED) if start.state == RUNNING else start
            for start in (Start(**start) for start in content['starts'])]


def write_starts(folder: str, starts: Sequence[Start]) -> None:
    """Writes the starts of a run.

    Raises:
        SaveError: If they could not be written; those written before are unchanged.
    """
    content = dict(starts=[asdict(start) for start in starts])
    atomic_write(osp.join(folder, NAME), json.dumps(content, indent=1) + '\n')


def local_time() -> str:
    """Formats the present time, with its distance from UTC."""
    return time.strftime('%Y-%m-%d %H:%M:%S %z')
