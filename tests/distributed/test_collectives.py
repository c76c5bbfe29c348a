import multiprocessing

import torch.distributed as dist

from mmseg_custom.distributed.collectives import (
    broadcast_from_rank0,
    gather_to_all,
    gather_to_rank0,
)


def exchange(rank: int, port: int, results: multiprocessing.SimpleQueue) -> None:
    dist.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    value = dict(rank=rank, large='x' * rank * 1000)
    results.put((rank, broadcast_from_rank0(value), gather_to_all(value), gather_to_rank0(value)))
    dist.destroy_process_group()


def test_values_of_two_processes(free_port):
    context = multiprocessing.get_context('fork')
    results = context.SimpleQueue()
    processes = [context.Process(target=exchange, args=(rank, free_port, results))
                 for rank in range(2)]
    for process in processes:
        process.start()
    found = dict((rank, rest) for rank, *rest in (results.get(), results.get()))
    for process in processes:
        process.join()
    values = [dict(rank=0, large=''), dict(rank=1, large='x' * 1000)]
    assert found == {0: [values[0], values, values], 1: [values[0], values, None]}


def test_one_process_keeps_its_value():
    assert (broadcast_from_rank0(3), gather_to_all(3), gather_to_rank0(3)) == (3, [3], [3])
