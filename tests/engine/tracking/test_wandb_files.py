"""The local files of W&B, whole and of a process that was killed."""
import struct

import pytest

from mmseg_custom.engine.tracking.wandb_files import BLOCK, HEADER, records_in


def written(*records):
    """Returns the content of a file: LevelDB's log behind the header."""
    data = bytearray(HEADER)
    for record in records:
        first = True
        while first or record:
            left = BLOCK - len(data) % BLOCK
            if left < 7:
                data += bytes(left)
                left = BLOCK
            part, record = record[:left - 7], record[left - 7:]
            kind = {(True, False): 1, (True, True): 2, (False, True): 3, (False, False): 4}[
                first, bool(record)]
            data += struct.pack('<IHB', 0, len(part), kind) + part
            first = False
    return bytes(data)


RECORDS = [b'a' * 10, b'b' * (BLOCK - HEADER - 7 - 10 - 7 - 3), b'c' * 3 * BLOCK, b'd']


def test_records_over_several_blocks():
    assert list(records_in(written(*RECORDS))) == RECORDS


@pytest.mark.parametrize('lost', [1, 8, BLOCK])
def test_what_is_half_written_is_left_out(lost):
    data = written(*RECORDS)[:-lost]
    assert list(records_in(data)) == RECORDS[:-1 if lost <= 8 else -2]
    assert list(records_in(b'')) == []
