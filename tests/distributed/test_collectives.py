"""Collectives of Python objects; as a script, this file is one of two processes."""
import json
import sys
from pathlib import Path

import torch.distributed as dist

from mmseg_custom.distributed.collectives import (
    broadcast_from_rank0,
    gather_to_all,
    gather_to_rank0,
)


def exchange(folder: Path) -> None:
    """Runs on two ranks: writes what each receives."""
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    value = dict(rank=rank, large='x' * rank * 1000)
    (folder / f'{rank}.json').write_text(json.dumps(
        [broadcast_from_rank0(value), gather_to_all(value), gather_to_rank0(value)]))
    dist.destroy_process_group()


def test_values_of_two_processes(zygote, tmp_path):
    zygote.run(__file__, tmp_path, ranks=2)
    found = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1)]
    values = [dict(rank=0, large=''), dict(rank=1, large='x' * 1000)]
    assert found == [[values[0], values, values], [values[0], values, None]]


def test_one_process_keeps_its_value():
    assert (broadcast_from_rank0(3), gather_to_all(3), gather_to_rank0(3)) == (3, [3], [3])


if __name__ == '__main__':
    exchange(Path(sys.argv[1]))
