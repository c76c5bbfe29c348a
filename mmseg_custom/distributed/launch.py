"""Starts the process group from torchrun, Slurm or MPI; nccl on GPUs, gloo on the CPU."""
import os
import re
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ..errors import InputError


@dataclass(frozen=True)
class _ProcessInfo:
    """Position of this process in the job."""
    rank: int
    world_size: int
    local_rank: int


def choose_device(asked: str | None = None) -> str:
    """Returns the device asked for, by default 'cuda' where the machine has a GPU, else 'cpu'.

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
        backend: Backend on GPUs; default: nccl. The CPU always has gloo.

    Raises:
        InputError: If a variable of the launcher is not set, or a node has too few GPUs.
    """
    try:
        process = {'pytorch': _torchrun, 'slurm': _slurm, 'mpi': _mpi}[launcher]()
    except KeyError as error:
        raise InputError(
            f'--launcher {launcher}: the environment variable {error.args[0]} is not set; start '
            'with dist_train.sh (pytorch), slurm_train.sh (slurm) or mpirun (mpi)') from error
    os.environ.update(RANK=str(process.rank), WORLD_SIZE=str(process.world_size),
                      LOCAL_RANK=str(process.local_rank))
    if device == 'cuda':
        gpus = torch.cuda.device_count()
        if process.local_rank >= gpus:
            raise InputError(f'process {process.local_rank} of this node has no GPU: {gpus} '
                             f'visible; start at most {gpus} processes a node')
        torch.cuda.set_device(process.local_rank)
    dist.init_process_group((backend or 'nccl') if device == 'cuda' else 'gloo',
                            rank=process.rank, world_size=process.world_size)


def is_first_of_node() -> bool:
    """Returns whether this is the process that reads large files for all of its node."""
    return int(os.environ.get('LOCAL_RANK', 0)) == 0


def _torchrun() -> _ProcessInfo:
    env = os.environ
    return _ProcessInfo(int(env['RANK']), int(env['WORLD_SIZE']), int(env['LOCAL_RANK']))


def _slurm() -> _ProcessInfo:
    env = os.environ
    rank, world_size = int(env['SLURM_PROCID']), int(env['SLURM_NTASKS'])
    local_rank = int(env['SLURM_LOCALID'])
    env.setdefault('MASTER_ADDR', _first_host(env['SLURM_NODELIST']))
    env.setdefault('MASTER_PORT', env.get('PORT', '29500'))
    # srun gives a task the whole node's GPUs, or (with --gpus-per-task) only its own.
    if torch.cuda.is_available() and torch.cuda.device_count() == 1:
        local_rank = 0
    return _ProcessInfo(rank, world_size, local_rank)


def _mpi() -> _ProcessInfo:
    env = os.environ
    env.setdefault('MASTER_ADDR', '127.0.0.1')
    env.setdefault('MASTER_PORT', env.get('PORT', '29500'))
    return _ProcessInfo(int(env['OMPI_COMM_WORLD_RANK']), int(env['OMPI_COMM_WORLD_SIZE']),
                        int(env['OMPI_COMM_WORLD_LOCAL_RANK']))


def _first_host(nodelist: str) -> str:
    """Returns the first host of a Slurm node list: 'gpu[07-09,12],cpu1' -> 'gpu07'."""
    return re.sub(r'([^\[,]+)(?:\[(\w+))?.*', r'\1\2', nodelist)
