"""Collectives of Python objects; as a script, this file is one of two processes."""
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from helpers.nccl_group import nccl_group

from mmseg_custom.distributed import collectives
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


def test_tensors_of_the_host_in_a_group_of_nccl(monkeypatch):
    """A group of nccl alone, as mmseg's own tools start it, needs another one beside it."""
    monkeypatch.setattr(collectives, 'new_group', lambda backend: f'another of {backend}')
    with nccl_group(8):
        assert collectives.cpu_group() == 'another of gloo'
    with nccl_group(8, host=True):
        assert collectives.cpu_group() is None
        dist.all_reduce(torch.ones(1))


if __name__ == '__main__':
    exchange(Path(sys.argv[1]))
