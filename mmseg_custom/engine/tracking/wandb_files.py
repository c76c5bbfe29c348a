"""What the local files of W&B hold of a run: offline, nothing else tells what was logged.

Each start of a run has a file ``FOLDER-ID/run-ID.wandb``: a header of 7 bytes, then blocks of 32
KiB with parts of records in the format of LevelDB's log,

    checksum (4 bytes) | length (2) | kind (1): 1 whole, 2 first, 3 middle or 4 last part | bytes

each record a message of W&B's protocol. A process that was killed may have written half of one.
"""
import importlib
import json
import struct
from collections.abc import Iterator, Mapping
from glob import escape, iglob
from pathlib import Path
from typing import Any

BLOCK, HEADER, PART = 32768, 7, struct.Struct('<IHB')
STEP, KIND = 'global_step', 'line'  # names in each logged line


def logged_lines(folder: str, run: str) -> dict[str, int]:
    """Returns the last iteration of each kind of line in the files of a run.

    Args:
        folder: Folder of all files of W&B.
        run: Id of the run.
    """
    found: dict[str, int] = {}
    for path in iglob(f'{escape(folder)}/*-{run}/run-{run}.wandb'):
        for line in history_of(path):
            kind, step = line.get(KIND), line.get(STEP)
            if isinstance(kind, str) and isinstance(step, (int, float)):
                found[kind] = max(found.get(kind, 0), int(step))
    return found


def history_of(path: str) -> Iterator[Mapping[str, Any]]:
    """Yields the lines that a file holds: name -> value."""
    messages = importlib.import_module('wandb.proto.wandb_internal_pb2')
    for data in records_in(Path(path).read_bytes()):
        record = messages.Record.FromString(data)
        if record.WhichOneof('record_type') == 'history':
            yield {item.key or '.'.join(item.nested_key): json.loads(item.value_json)
                   for item in record.history.item}


def records_in(data: bytes) -> Iterator[bytes]:
    """Yields the whole records of a file's content."""
    at, parts = HEADER, b''
    while at + PART.size <= len(data):
        left = BLOCK - at % BLOCK
        if left < PART.size:  # the rest of a block is padding
            at += left
            continue
        _, length, kind = PART.unpack_from(data, at)
        at += PART.size
        if kind not in (1, 2, 3, 4) or at + length > len(data):
            return
        parts = (b'' if kind in (1, 2) else parts) + data[at:at + length]
        at += length
        if kind in (1, 4):
            yield parts
