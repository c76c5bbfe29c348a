"""How FSDP2 spreads a model over several hosts, where ``engine`` leaves it to this file.

The GPUs of a host are connected several times faster than hosts are. What crosses the network in a
step of one row of all processes: the weights, gathered in the forward and again in the backward
pass, and all gradients. So, where the memory of a GPU holds it,

1. ``hybrid``: each host holds all states once. Weights are gathered within the host, and one shard
   of the gradients is summed over the hosts.
2. ``reshard_after_forward``, where a row has to span the hosts: weights that were gathered stay
   until the backward pass. Within a host they are freed: the second gather is hidden behind the
   arithmetic, and the memory spares recomputation.

The memory is predicted by :func:`.memory.state_bytes`, and a share of it is left to activations.
"""
from dataclasses import dataclass, replace

import torch
from mmseg.utils import get_root_logger
from torch import nn

from ..units import GIB
from .collectives import gather_to_all
from .devices import memory_for_run
from .memory import state_bytes, storage_of, usable_bytes
from .mesh import rows_of_hosts
from .options import AUTOMATIC, Engine

ACTIVATIONS = 0.25  # share of a GPU's memory that the states leave free


@dataclass(frozen=True)
class Topology:
    """The hosts of a run.

    Attributes:
        sizes: Number of processes of each host.
        memory: Bytes that tensors may fill on each GPU; None if not known, and on the CPU.
    """
    sizes: tuple[int, ...]
    memory: int | None


def find_topology(device: str) -> Topology:
    """Returns the hosts of this run, and the memory of its smallest GPU; called on all ranks."""
    sizes = tuple(len(row) for row in rows_of_hosts())
    if device != 'cuda':
        return Topology(sizes, None)
    return Topology(sizes, usable_bytes(least_memory()))


def least_memory() -> int:
    """Returns the bytes that the run may take on each of its GPUs; called on all ranks."""
    return min(gather_to_all(memory_for_run(torch.cuda.current_device())))


def is_unresolved(engine: Engine) -> bool:
    """Returns whether the hosts decide an option of the engine."""
    return AUTOMATIC in (engine.hybrid, engine.reshard_after_forward)


def resolve_topology(engine: Engine, model: nn.Module, topology: Topology, dtype: torch.dtype,
                     optimizer: dict) -> Engine:
    """Returns the engine of a sharded model with ``hybrid`` and ``reshard_after_forward`` decided.

    Args:
        engine: Engine of the run.
        model: Segmentor with ``requires_grad`` set as for training; it may be on the meta device.
        topology: Hosts of the run.
        dtype: Dtype that the backbone computes in.
        optimizer: ``optimizer`` of the config.
    """
    hosts, ranks = len(topology.sizes), sum(topology.sizes)

    def states(engine: Engine, ranks: int) -> int:
        """Counts the bytes of a GPU, of states shared by so many."""
        found = state_bytes(model, 'fsdp2', ranks, engine, dtype, storage_of(optimizer))
        return found.working if engine.cpu_offload else sum(found)

    def fits(needed: int) -> bool:
        return topology.memory is not None and needed <= (1 - ACTIVATIONS) * topology.memory

    several = hosts > 1 and hasattr(model.backbone, 'blocks')
    if engine.hybrid == AUTOMATIC:
        shares = several and len(set(topology.sizes)) == 1 and topology.sizes[0] > 1
        needed = states(engine, topology.sizes[0]) if shares else 0
        engine = replace(engine, hybrid=shares and fits(needed))
        if shares and topology.memory is not None:
            _log('hybrid', engine.hybrid, 'sharding within each host', needed, topology.memory)
    if engine.reshard_after_forward == AUTOMATIC:
        spans = several and not engine.hybrid
        kept = replace(engine, reshard_after_forward=False)
        needed = states(kept, ranks) if spans else 0
        engine = replace(engine, reshard_after_forward=not (spans and fits(needed)))
        if spans and topology.memory is not None:
            _log('reshard_after_forward', engine.reshard_after_forward,
                 'keeping gathered weights for the backward pass', needed, topology.memory)
    return engine


def _log(option: str, value: bool | str, doing: str, needed: int, memory: int) -> None:
    get_root_logger().info(
        "engine.%s='auto': %s (%s takes %.1f GiB a GPU without activations, of %.1f GiB)", option,
        value, doing, needed / GIB, memory / GIB)
