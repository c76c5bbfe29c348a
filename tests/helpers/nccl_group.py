"""Groups of nccl without a GPU: collectives take CUDA tensors alone, and move nothing.

    with nccl_group(ranks=8) as group, FakeTensorMode(), group.watched():
        dist.all_reduce(torch.ones(3, device='cuda'))   # passes, and changes nothing
        dist.all_reduce(torch.ones(3))                  # raises HostTensor

The process group is torch's fake one, registered for CUDA alone, as nccl is: ``cuda:fake`` in the
place of ``cuda:nccl``. Real tensors of the CPU then end in the error of nccl itself, "No backend
type associated with device type cpu", and ``dist.get_backend_config()`` names no backend for them.
With ``host=True`` there is one, as in the groups of a run on GPUs (``cpu:gloo,cuda:nccl``).

Fake tensors carry the device that they stand for, but reach the group as tensors on the meta
device, of which it refuses none. ``watched()`` is a dispatch mode that sees their devices before
that: each operation of torch's libraries of collectives (``c10d``, which ``torch.distributed``
calls, and ``_c10d_functional``, which DTensors call) with its tensors. It must be entered inside
the ``FakeTensorMode``. It notes (name of the collective, devices of its tensors) in ``seen``.
DDP's constructor compares parameters over the ranks in C++, which fake ones have no memory for:
``init_sync=False`` leaves that out.

Nothing is communicated: gathered tensors hold whatever was in them, and object collectives
(``broadcast_object_list`` ...), which a group for CUDA alone sends through the GPU, need a GPU.
"""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LIBRARIES = ('c10d', '_c10d_functional', '_c10d_functional_autograd')
WITHOUT_DATA = ('barrier', 'monitored_barrier_', 'wait_tensor')


class HostTensor(AssertionError):
    """A tensor of the CPU was given to a collective of an nccl group."""


class Group:
    """The group of :func:`nccl_group`.

    Attributes:
        seen: (collective, types of the devices of its tensors) of each call under ``watched``.
    """

    def __init__(self):
        self.seen: list[tuple[str, frozenset[str]]] = []

    @contextmanager
    def watched(self, host: bool = False) -> Iterator[None]:
        """Watches the tensors of collectives.

        Args:
            host: Whether tensors of the CPU are let through, as gloo's part of a group takes them.

        Raises:
            HostTensor: From a collective that is given one of the CPU.
        """
        with _Watch(self.seen, host):
            yield


@contextmanager
def nccl_group(ranks: int = 2, rank: int = 0, host: bool = False) -> Iterator[Group]:
    """Starts a group of which only this process exists; see the module.

    Args:
        ranks: Number of processes.
        rank: Rank of this process.
        host: Whether the group also takes tensors of the CPU, as with gloo beside nccl.
    """
    dist.init_process_group('cpu:fake,cuda:fake' if host else 'cuda:fake', store=FakeStore(),
                            rank=rank, world_size=ranks)
    try:
        yield Group()
    finally:
        dist.destroy_process_group()


class _Watch(TorchDispatchMode):
    def __init__(self, seen: list, host: bool):
        super().__init__()
        self.seen, self.host = seen, host

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        library, _, name = func._schema.name.partition('::')
        if library in LIBRARIES and name not in WITHOUT_DATA:
            devices = frozenset(leaf.device.type for leaf in tree_leaves((args, kwargs or {}))
                                if isinstance(leaf, torch.Tensor))
            self.seen.append((name, devices))
            if 'cpu' in devices and not self.host:
                raise HostTensor(f'{name} of a tensor of the CPU in a group of nccl')
        return func(*args, **(kwargs or {}))
