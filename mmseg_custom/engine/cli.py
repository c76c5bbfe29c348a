"""What the command-line tools share: errors in one line, the start of a run, common options."""
import argparse
import json
import logging
import os
import os.path as osp
import random
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from mmcv import Config, DictAction
from mmcv.runner import get_dist_info
from mmseg.utils import collect_env, get_root_logger, setup_multi_processes

from ..distributed.collectives import broadcast_from_rank0
from ..distributed.launch import choose_device, init_process_group
from ..errors import InputError
from .lock import lock_work_dir


def run(main: Callable[[], None]) -> None:
    """Runs a tool; what is the input's fault becomes one line and exit code 1.

    A traceback is printed for anything else, and for everything with ``--debug`` or at the log
    level DEBUG.
    """
    try:
        main()
    except (Exception, KeyboardInterrupt) as error:
        message = explain(error)
        debug = '--debug' in sys.argv or logging.getLogger('mmseg').level == logging.DEBUG
        rank, world_size = get_dist_info()
        if message is None and world_size > 1 and lost_rank(error):
            message = 'the connection to another process is lost; its message says why'
            time.sleep(3)  # the launcher is to see first who failed first
        tell_launcher(message or f'{type(error).__name__}: {error}')
        if message is None or debug:
            raise
        who = f'error [rank {rank}]' if world_size > 1 else 'error'
        sys.stdout.flush()
        print(f'{who}: {message}', file=sys.stderr, flush=True)
        if world_size > 1:
            os._exit(1)  # the others may be waiting in a collective; the launcher ends them
        sys.exit(1)
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def explain(error: BaseException) -> str | None:
    """The one line for an error that is the input's fault; None for any other error."""
    if isinstance(error, KeyboardInterrupt):
        return ': '.join(filter(None, ('interrupted', str(error))))
    while error is not None:
        if isinstance(error, InputError):
            # A loader's worker sends its whole traceback as the message: the last line counts.
            return str(error).strip().splitlines()[-1].split('InputError: ')[-1]
        if isinstance(error, OSError) and error.filename is not None:
            return f'{error.filename}: {error.strerror}'
        error = error.__cause__ or error.__context__
    return None


def tell_launcher(message: str) -> None:
    """Writes why this process fails to where torchrun looks for it, so that it can repeat it."""
    path = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if path:
        with open(path, 'w') as file:
            json.dump(dict(message=dict(message=message.strip().splitlines()[0], extraInfo=dict(
                py_callstack='', timestamp=str(int(time.time()))))), file)


def lost_rank(error: BaseException) -> bool:
    """Whether an error of torch's collectives says that another process is gone."""
    return isinstance(error, dist.DistError) or isinstance(error, RuntimeError) and any(
        word in str(error) for word in ('gloo/', 'Gloo', 'NCCL', 'Connection closed by peer',
                                        'Connection reset by peer'))


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that training and testing have in common, mmseg 0.30's and two of our own."""
    parser.add_argument('--device', choices=('cuda', 'cpu'),
                        help='default: cuda where there is a GPU')
    parser.add_argument('--debug', action='store_true', help='print the traceback of any error')
    parser.add_argument('--check-finite', action='store_true',
                        help='refuse weights that hold NaN or infinity (reads them all)')
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results; default: '
                        'work_dirs/<name of the config>')
    parser.add_argument('--cfg-options', '--options', nargs='+', action=DictAction, default={},
                        metavar='KEY=VALUE', help='override settings of the config, e.g. '
                        'optimizer.lr=1e-4 data.samples_per_gpu=4 model.backbone.out_indices=[23]')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)  # old launchers pass it
    gpus = parser.add_mutually_exclusive_group()
    gpus.add_argument('--gpu-id', type=int, default=0, help='the GPU of a run in one process')
    gpus.add_argument('--gpu-ids', type=int, nargs='+', help='deprecated: the first is taken')
    gpus.add_argument('--gpus', type=int, help='deprecated: one process uses one GPU')


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that runs and sweeps have in common."""
    parser.add_argument('--auto-resume', action='store_true',
                        help='go on from what is in the work dir, if there is something')
    parser.add_argument('--total-batch', type=int, metavar='N', help='images of an optimizer step '
                        'over all processes: works out samples per process and accumulation')
    parser.add_argument('--no-validate', action='store_true', help='no evaluation while training')
    parser.add_argument('--seed', type=int,
                        help='default: that of the run that goes on, else drawn anew')
    parser.add_argument('--diff_seed', '--diff-seed', action='store_true',
                        help='another seed on every rank')
    parser.add_argument('--deterministic', action='store_true',
                        help='deterministic cuDNN kernels')


def start(args: argparse.Namespace, cfg: Config, log: bool) -> tuple[str, str]:
    """Sets up device, process group and log of a run.

    Args:
        args: With the options of :func:`add_common_arguments`.
        cfg: Its config, with ``work_dir``.
        log: Whether a log file is written into the work dir, which is then this run's alone.

    Returns:
        The device ('cuda' or 'cpu') and the timestamp that names the log.
    """
    device = choose_device(args.device)
    cfg.check_finite = args.check_finite
    if args.launcher != 'none':
        backend = cfg.get('dist_params', {}).get('backend') or 'nccl'
        if (cfg.get('engine') or {}).get('cpu_offload'):
            backend = f'cpu:gloo,cuda:{backend}'  # the norm of offloaded gradients is of the CPU
        init_process_group(args.launcher, device, backend)
    elif device == 'cuda':
        torch.cuda.set_device(args.gpu_ids[0] if args.gpu_ids else args.gpu_id)
    torch.backends.cudnn.benchmark = cfg.get('cudnn_benchmark', False)
    timestamp = time.strftime('%Y%m%d_%H%M%S', time.localtime())
    rank, world_size = get_dist_info()
    if rank == 0:
        os.makedirs(cfg.work_dir, exist_ok=True)
        if log:
            lock_work_dir(cfg.work_dir)
    if world_size > 1:
        dist.barrier()
    logger = get_root_logger(osp.join(cfg.work_dir, f'{timestamp}.log') if log else None,
                             cfg.get('log_level', 'INFO'))
    logger.propagate = False
    setup_multi_processes(cfg)
    if log:
        env = '\n'.join(f'{key}: {value}' for key, value in collect_env().items())
        logger.info('environment\n%s', env)
    return device, timestamp


def seed_everything(seed: int | None, diff_seed: bool, deterministic: bool) -> int:
    """Seeds all generators of the process.

    Args:
        seed: None draws one, the same on all ranks.
        diff_seed: Add the rank to the seed of the generators, not to the one that is returned.
        deterministic: Ask cuDNN for deterministic kernels.

    Returns:
        The seed that the ranks share.
    """
    rank, _ = get_dist_info()
    if seed is None:
        seed = broadcast_from_rank0(int(np.random.SeedSequence().generate_state(1)[0]) % 2**31)
    own = seed + rank if diff_seed else seed
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)
    if deterministic:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    get_root_logger().info('seed: %d, deterministic: %s', own, deterministic)
    return seed
