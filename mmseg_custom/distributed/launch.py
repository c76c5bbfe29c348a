"""Starts the process group from torchrun, Slurm or MPI.

On the CPU the group is one of gloo. On GPUs it has two parts, ``cpu:gloo,cuda:nccl``: tensors of
the GPU go through nccl, those of the host, and Python objects, through gloo.
"""
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from ..errors import InputError, refuse_unknown
from .devices import use_gpu
from .hosts import (
    GLOO_VARIABLE,
    address_towards,
    by_host,
    exchange,
    gloo_uses_loopback,
    host_id,
    interface_of,
    peer_address,
)


@dataclass(frozen=True)
class DistParams:
    """``dist_params=dict(...)`` of a config.

    Attributes:
        backend: Backend for tensors of the GPU, 'nccl' or 'gloo'. The CPU always has gloo.
        timeout_minutes: Minutes that a process waits for the others, in a collective or for the
            group to form, before the run fails. nccl's own 10 are too few where rank 0 hashes a
            large file, or evaluates, or writes a checkpoint to a slow disk, while the others wait.
        port: Port of the rendezvous under Slurm and MPI; default: MASTER_PORT or PORT in the
            environment, or 29500.
    """
    backend: str = 'nccl'
    timeout_minutes: float = 60
    port: int | None = None

    @classmethod
    def of(cls, options: dict | None) -> 'DistParams':
        """Reads ``dist_params=dict(...)`` of a config.

        Raises:
            InputError: For an unknown key or value.
        """
        options = {name: value for name, value in (options or {}).items() if value is not None}
        refuse_unknown('dist_params', options, ('backend', 'timeout_minutes', 'port'))
        params = cls(**options)
        if not isinstance(params.timeout_minutes, (int, float)) or params.timeout_minutes <= 0:
            raise InputError(f'dist_params.timeout_minutes={params.timeout_minutes!r}: expected '
                             'more than 0 minutes')
        return params


@dataclass(frozen=True)
class _Process:
    """Position of this process in the job, as its launcher says."""
    rank: int
    world_size: int
    local_rank: int  # among the processes that the launcher started on this node


def init_process_group(launcher: str, device: str, params: DistParams | None = None) -> list[str]:
    """Joins the process group of the launcher, and sets the GPU of this process.

    mmcv 1.7's ``init_dist`` divides by the number of GPUs, which is 0 on a CPU, and sets the start
    method of all processes to spawn; torch.distributed is all that is needed.

    RANK and WORLD_SIZE are set in the environment, and so are LOCAL_RANK and LOCAL_WORLD_SIZE: the
    position of this process among those of its host, and their number. They are found by the host
    of each process, because launchers number in other ways (one torchrun a GPU: all 0), and say
    nothing about which GPU is whose.

    Args:
        launcher: 'pytorch' (torchrun), 'slurm' or 'mpi'.
        device: 'cuda' or 'cpu'.
        params: Settings of the config.

    Returns:
        Notes for the log.

    Raises:
        InputError: If a variable of the launcher is not set, not all processes join, a node has
            too few GPUs, two processes have the same one, or hosts cannot reach each other.
    """
    params = params or DistParams()
    process = _process_of(launcher, params.port)
    gpu = None
    if device == 'cuda':
        gpu = gpu_of(process.local_rank, torch.cuda.device_count(), params.backend)
        use_gpu(gpu)
    rank, ranks = process.rank, process.world_size
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks))
    timeout = timedelta(minutes=params.timeout_minutes)
    store = _meet(rank, ranks, timeout)
    hosts, gpus, addresses = zip(*exchange(
        dist.PrefixStore('hosts', store), rank, ranks,
        (host_id(), _gpu_name(gpu), address_towards(os.environ['MASTER_ADDR']))))
    if params.backend != 'gloo':
        refuse_shared_gpus(hosts, gpus)
    neighbours = next(group for group in by_host(hosts) if rank in group)
    os.environ.update(LOCAL_RANK=str(neighbours.index(rank)),
                      LOCAL_WORLD_SIZE=str(len(neighbours)))
    notes = _choose_interface(rank, hosts, addresses)
    backend = 'gloo' if device == 'cpu' else backends_of(params.backend)
    dist.init_process_group(
        backend, store=dist.PrefixStore('default_pg', store), rank=rank, world_size=ranks,
        timeout=timeout,
        # nccl connects at once, and barriers and new groups need not guess the GPU.
        device_id=torch.device('cuda', gpu) if 'nccl' in backend and gpu is not None else None)
    return notes


def is_first_of_node() -> bool:
    """Returns whether this is the process that reads large files for all of its host."""
    return int(os.environ.get('LOCAL_RANK', 0)) == 0


def backends_of(backend: str) -> str:
    """Returns the backends of a group on GPUs.

    Args:
        backend: Backend for tensors of the GPU, or torch's list of devices and backends.
    """
    return backend if backend == 'gloo' or ':' in backend else f'cpu:gloo,cuda:{backend}'


def gpu_of(local_rank: int, gpus: int, backend: str) -> int:
    """Returns the index of the GPU of a process among the visible ones.

    Args:
        local_rank: Number of the process on its node, by its launcher.
        gpus: Number of visible GPUs. A single one is taken by every process that sees it:
            schedulers show each process its own (``srun --gpus-per-task=1``).
        backend: Backend for tensors of the GPU; processes may share one with gloo alone.

    Raises:
        InputError: If there are more processes than GPUs.
    """
    if gpus == 1:
        return 0
    if local_rank >= gpus and backend != 'gloo':
        raise InputError(
            f'process {local_rank} of this node has no GPU: {gpus} are visible; start at most '
            f'{gpus} processes a node, or let them share GPUs with dist_params.backend=gloo')
    return local_rank % gpus


def refuse_shared_gpus(hosts: Sequence[str], gpus: Sequence[str | None]) -> None:
    """Refuses processes on the same GPU, which nccl does not connect.

    Args:
        hosts: Host of each rank.
        gpus: Identity of each rank's GPU; None where it is not known.

    Raises:
        InputError: Naming the first two.
    """
    taken: dict[tuple[str, str], int] = {}
    for rank, (host, gpu) in enumerate(zip(hosts, gpus)):
        if gpu is None:
            continue
        first = taken.setdefault((host, gpu), rank)
        if first != rank:
            raise InputError(
                f'ranks {first} and {rank} have the same GPU ({gpu}) of host {host.split()[0]}: '
                'start one process a GPU (srun --gpus-per-task=1 gives each its own), or let them '
                'share it with dist_params.backend=gloo')


def _meet(rank: int, ranks: int, timeout: timedelta) -> dist.Store:
    """Returns the store that all processes share, at MASTER_ADDR:MASTER_PORT.

    Raises:
        InputError: If the port is taken, or a process does not come.
    """
    try:
        store, _, _ = next(dist.rendezvous('env://', rank, ranks, timeout=timeout))
    except RuntimeError as error:  # older PyTorch has no class for some of these
        port = os.environ['MASTER_PORT']
        if 'EADDRINUSE' in str(error):
            raise InputError(f'port {port} of this host is taken, by another job most likely: set '
                             'PORT to a free one, or dist_params.port under Slurm') from error
        raise InputError(
            f'rank {rank}: not all of {ranks} processes met at {os.environ["MASTER_ADDR"]}:{port} '
            f'({str(error).strip().splitlines()[0]}): start all of them, let the nodes reach that '
            'port, or raise dist_params.timeout_minutes') from error
    store.set_timeout(timeout)
    return store


def _gpu_name(index: int | None) -> str | None:
    return None if index is None else str(torch.cuda.get_device_properties(index).uuid)


def _choose_interface(rank: int, hosts: Sequence[str], addresses: Sequence[str | None]
                      ) -> list[str]:
    """Sets the network interface of gloo where it would listen for its own host alone.

    Returns:
        Notes for the log.

    Raises:
        InputError: If there are several hosts, and the interface cannot be told.
    """
    if len(set(hosts)) == 1 or not any(addresses) or not gloo_uses_loopback():
        return []  # One host, or hosts (containers) of one network, or nothing to mend.
    peer = peer_address(rank, hosts, addresses)
    own = addresses[rank] or (address_towards(peer) if peer else None)
    interface = interface_of(own) if own else None
    if interface is None:
        raise InputError(
            f'the name of host {hosts[rank].split()[0]} resolves to a loopback address, where '
            f'other hosts cannot reach gloo: set {GLOO_VARIABLE} to its network interface (`ip -br '
            'addr` lists them), or correct /etc/hosts')
    os.environ[GLOO_VARIABLE] = interface
    return [f'{GLOO_VARIABLE}={interface}: the host name resolves to a loopback address, where '
            'other hosts cannot reach gloo']


def _process_of(launcher: str, port: int | None) -> _Process:
    try:
        return {'pytorch': _torchrun, 'slurm': _slurm, 'mpi': _mpi}[launcher](port)
    except KeyError as error:
        raise InputError(
            f'--launcher {launcher}: the environment variable {error.args[0]} is not set; start '
            'with dist_train.sh (pytorch), slurm_train.sh (slurm) or mpirun (mpi)') from error


def _torchrun(_port: int | None) -> _Process:
    env = os.environ
    return _Process(int(env['RANK']), int(env['WORLD_SIZE']), int(env['LOCAL_RANK']))


def _slurm(port: int | None) -> _Process:
    env = os.environ
    process = _Process(int(env['SLURM_PROCID']), int(env['SLURM_NTASKS']),
                       int(env['SLURM_LOCALID']))
    env.setdefault('MASTER_ADDR', _first_host(env['SLURM_NODELIST']))
    _set_port(port)
    return process


def _mpi(port: int | None) -> _Process:
    env = os.environ
    env.setdefault('MASTER_ADDR', '127.0.0.1')
    _set_port(port)
    return _Process(int(env['OMPI_COMM_WORLD_RANK']), int(env['OMPI_COMM_WORLD_SIZE']),
                    int(env['OMPI_COMM_WORLD_LOCAL_RANK']))


def _set_port(port: int | None) -> None:
    env = os.environ
    if port is not None:
        env['MASTER_PORT'] = str(port)
    env.setdefault('MASTER_PORT', env.get('PORT', '29500'))


def _first_host(nodelist: str) -> str:
    """Returns the first host of a Slurm node list: 'gpu[07-09,12],cpu1' -> 'gpu07'."""
    return re.sub(r'([^\[,]+)(?:\[(\w+))?.*', r'\1\2', nodelist)
