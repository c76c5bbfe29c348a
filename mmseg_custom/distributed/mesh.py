"""The mesh of FSDP2's processes: one row of all, or one row for each host."""
from collections.abc import Sequence

import torch
import torch.distributed as dist
from mmseg.utils import get_root_logger
from torch.distributed.device_mesh import DeviceMesh

from ..errors import InputError
from .collectives import gather_to_all, new_group
from .hosts import by_host, host_id


def build_mesh(device: str, hybrid: bool) -> DeviceMesh:
    """Returns a mesh of all processes in one row or, with ``hybrid``, in one row a host.

    Raises:
        InputError: If the hosts have different numbers of processes.
    """
    assert dist.group.WORLD is not None
    if not hybrid:
        # torch's init_device_mesh would put nccl beside a group of gloo, also where processes
        # share a GPU.
        return DeviceMesh.from_group(dist.group.WORLD, device, mesh_dim_names=('shard',))
    rows = rows_of_hosts()
    sizes = sorted({len(row) for row in rows})
    if len(sizes) > 1:
        raise InputError('engine.hybrid: the hosts have different numbers of processes, '
                         f'{sizes[0]} to {sizes[-1]}: start the same number on each')
    log = get_root_logger().warning if sizes == [1] else get_root_logger().info
    log('engine.hybrid: %d host(s) with %d process(es) each; each host holds all weights once',
        len(rows), sizes[0])
    return mesh_of_rows(rows, device)


def rows_of_hosts() -> list[list[int]]:
    """Returns the ranks of each host; called on all ranks."""
    return by_host(gather_to_all(host_id()))


def mesh_of_rows(rows: Sequence[Sequence[int]], device: str) -> DeviceMesh:
    """Returns a mesh that shards within rows of ranks, and replicates over the rows.

    Its groups have all backends of the default group, as offloading needs: torch's own split of a
    bound group would keep nccl alone.

    Args:
        rows: Ranks of each host, of equal number, in ascending order.
        device: 'cuda' or 'cpu'.
    """
    own = {}
    for name, lines in (('replicate', list(zip(*rows))), ('shard', rows)):
        for line in lines:
            group = new_group(line)
            if dist.get_rank() in line:
                own[name] = group
    return DeviceMesh.from_group(list(own.values()), device, torch.tensor(rows),
                                 mesh_dim_names=tuple(own))
