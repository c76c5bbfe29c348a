"""Starts the process group: by torchrun, Slurm or MPI; nccl on GPUs, gloo on the CPU."""
import os
import re
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ..errors import InputError


@dataclass(frozen=True)
class _Place:
    """Where a process stands in the job."""
    rank: int
    world_size: int
    local_rank: int


def choose_device(asked: str | None = None) -> str:
    """Returns 'cuda' or 'cpu': what was asked for, else what the machine has.

    Raises:
        InputError: If a GPU is asked for and there is none.
    """
    if asked == 'cuda' and not torch.cuda.is_available():
        raise InputError('--device cuda: this machine has no CUDA GPU that PyTorch '
                         f'{torch.__version__} can use; leave the option out, or use --device cpu')
    return asked or ('cuda' if torch.cuda.is_available() else 'cpu')


def init_process_group(launcher: str, device: str, backend: str | None = None) -> None:
    """Joins the process group of the launcher.

    mmcv 1.7's ``init_dist`` divides by the number of GPUs, which is 0 on a CPU, and sets the start
    method of all processes to spawn; torch.distributed is all that is needed.

    Args:
        launcher: 'pytorch' (torchrun), 'slurm' or 'mpi'.
        device: 'cuda' or 'cpu'.
        backend: Instead of nccl on GPUs; the CPU has gloo.

    Raises:
        InputError: If the launcher's environment is not there, or a node has too few GPUs.
    """
    try:
        place = {'pytorch': _torchrun, 'slurm': _slurm, 'mpi': _mpi}[launcher]()
    except KeyError as error:
        raise InputError(
            f'--launcher {launcher}: the environment variable {error.args[0]} is not set; start '
            'with dist_train.sh (pytorch), slurm_train.sh (slurm) or mpirun (mpi)') from error
    os.environ.update(RANK=str(place.rank), WORLD_SIZE=str(place.world_size),
                      LOCAL_RANK=str(place.local_rank))
    if device == 'cuda':
        gpus = torch.cuda.device_count()
        if place.local_rank >= gpus:
            raise InputError(f'process {place.local_rank} of this node has no GPU: {gpus} '
                             f'visible; start at most {gpus} processes a node')
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group((backend or 'nccl') if device == 'cuda' else 'gloo',
                            rank=place.rank, world_size=place.world_size)


def broadcast_from_rank0(value: object) -> object:
    """The value of rank 0, on every rank."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def is_first_of_node() -> bool:
    """Whether this process is the one of its node that reads large files for all."""
    return int(os.environ.get('LOCAL_RANK', 0)) == 0


def _torchrun() -> _Place:
    env = os.environ
    return _Place(int(env['RANK']), int(env['WORLD_SIZE']), int(env['LOCAL_RANK']))


def _slurm() -> _Place:
    env = os.environ
    place = _Place(int(env['SLURM_PROCID']), int(env['SLURM_NTASKS']), int(env['SLURM_LOCALID']))
    env.setdefault('MASTER_ADDR', _first_host(env['SLURM_NODELIST']))
    env.setdefault('MASTER_PORT', env.get('PORT', '29500'))
    # srun gives a task the whole node's GPUs, or (with --gpus-per-task) only its own.
    if torch.cuda.is_available() and torch.cuda.device_count() == 1:
        return _Place(place.rank, place.world_size, 0)
    return place


def _mpi() -> _Place:
    env = os.environ
    env.setdefault('MASTER_ADDR', '127.0.0.1')
    env.setdefault('MASTER_PORT', env.get('PORT', '29500'))
    return _Place(int(env['OMPI_COMM_WORLD_RANK']), int(env['OMPI_COMM_WORLD_SIZE']),
                  int(env['OMPI_COMM_WORLD_LOCAL_RANK']))


def _first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: 'gpu[07-09,12],cpu1' -> 'gpu07'."""
    match = re.match(r'([^\[,]+)(?:\[(\w+))?', nodelist)
    return match.group(1) + (match.group(2) or '')
