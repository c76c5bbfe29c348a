"""Code shared by the command-line tools: options, the start of a run, one-line errors."""
import argparse
import json
import logging
import os
import os.path as osp
import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from mmcv import Config, DictAction
from mmcv.runner import get_dist_info
from mmseg.utils import collect_env, get_root_logger, setup_multi_processes

from ..checkpoint.integrity import finish_checks
from ..distributed.collectives import broadcast_from_rank0
from ..distributed.devices import taken_by_others, use_gpu
from ..distributed.failures import explain_failure, explain_lost_rank, lost_rank
from ..distributed.launch import DistParams, init_process_group
from ..errors import InputError, one_line
from ..files import atomic_write
from .config import load_config, loader_options, resolve_config
from .determinism import NO_KERNEL, use_deterministic_kernels
from .last_save import PATIENCE, PATIENCE_BEFORE_SPARE, check_spare_folder
from .loader_failures import explain_loader
from .lock import lock_work_dir
from .log_files import LogFile
from .options import RunOptions
from .preemption import end_workers
from .run import Run, prepare_run
from .schema import check_config
from .sweep.records import seed_of_sweep


def run(main: Callable[[], None]) -> None:
    """Runs a tool; reports an error in the input in one line, with exit code 1.

    Other errors are raised with their traceback; with ``--debug``, or at log level DEBUG, all are.
    """
    try:
        main()
        finish_checks()
    except (Exception, KeyboardInterrupt) as error:
        message = explain(error)
        debug = '--debug' in sys.argv or logging.getLogger('mmseg').level == logging.DEBUG
        rank, world_size = get_dist_info()
        if message is None and world_size > 1 and lost_rank(error):
            message = explain_lost_rank(error)
            time.sleep(3)  # The launcher must hear first from the process that failed first.
        tell_launcher(message or f'{type(error).__name__}: {error}')
        shows_traceback = message is None or debug
        if world_size == 1 and shows_traceback:
            raise
        sys.stdout.flush()
        if shows_traceback:
            traceback.print_exc()
        else:
            who = f'error [rank {rank}]' if world_size > 1 else 'error'
            print(f'{who}: {message}', file=sys.stderr)
        if world_size > 1:  # The others may be waiting in a collective; the launcher ends them.
            _leave(1)
        sys.exit(1)
    except SystemExit as end:
        if get_dist_info()[1] > 1 and isinstance(end.code, int):
            _leave(end.code)
        raise
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def _leave(code: int) -> None:
    """Ends a process of several without taking its objects apart, the process group among them.

    The end of a group of nccl waits for ranks that may be in a collective. That of gloo joins a
    thread while it holds Python's lock, for which that thread may be waiting.
    """
    end_workers()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def explain(error: BaseException) -> str | None:
    """Returns the line for an error in the input or of a GPU; None for any other error."""
    if isinstance(error, KeyboardInterrupt):
        return ': '.join(filter(None, ('interrupted', str(error))))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        if isinstance(cause, OSError) and cause.filename is not None:
            return one_line(f'{cause.filename}: {cause.strerror}')
        if (line := explain_failure(cause) or explain_loader(cause)) is not None:
            return line
        if isinstance(cause, RuntimeError) and NO_KERNEL in str(cause):
            return (f'--deterministic: {str(cause).split()[0]} has no deterministic kernel on this '
                    'GPU; train with --no-deterministic')
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def tell_launcher(message: str) -> None:
    """Writes why this process fails to the file from which torchrun reports it."""
    path = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if path:
        with suppress(OSError), open(path, 'w') as file:
            json.dump(dict(message=dict(message=message.strip().splitlines()[0], extraInfo=dict(
                py_callstack='', timestamp=str(int(time.time()))))), file)


class KeyValues(DictAction):
    """mmcv's ``KEY=VALUE`` options, which may be given several times.

    mmcv keeps those of the last time alone; it unpacks what has no ``=``, and fails.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, option_string: str | None = None) -> None:
        """Parses the options, or ends the command with a line on the first that is none."""
        for value in values:
            if not value.partition('=')[0] or '=' not in value:
                parser.error(f'{option_string} {value}: expected KEY=VALUE, without spaces')
        before = getattr(namespace, self.dest) or {}
        super().__call__(parser, namespace, values, option_string)
        setattr(namespace, self.dest, {**before, **getattr(namespace, self.dest)})


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that training and testing have in common, mmseg 0.30's and our own."""
    parser.add_argument('--device', choices=('cuda', 'cpu'),
                        help='default: cuda if there is a GPU')
    parser.add_argument('--debug', action='store_true', help='print the traceback of any error')
    parser.add_argument('--check-finite', action='store_true',
                        help='refuse weights that hold NaN or infinity (reads them all)')
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results; default: '
                        'work_dirs/<name of the config>')
    parser.add_argument('--cfg-options', '--options', nargs='+', action=KeyValues, default={},
                        metavar='KEY=VALUE', help='override settings of the config, e.g. '
                        'optimizer.lr=1e-4 data.samples_per_gpu=4 model.backbone.out_indices=[23]')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)  # Old launchers pass it.
    gpus = parser.add_mutually_exclusive_group()
    gpus.add_argument('--gpu-id', type=int, default=0, help='GPU of a run in one process')
    gpus.add_argument('--gpu-ids', type=int, nargs='+', help='deprecated: only the first is used')
    gpus.add_argument('--gpus', type=int, help='deprecated: one process uses one GPU')


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that runs and sweeps have in common."""
    parser.add_argument('--auto-resume', action='store_true',
                        help='resume from the newest complete checkpoint in the work dir')
    parser.add_argument('--total-batch', type=int, metavar='N', help='images of an optimizer step '
                        'over all processes: sets the samples per process and the accumulation')
    parser.add_argument('--allow-nonfinite', action='store_true', help='go on when the loss, the '
                        'gradient norm or a weight is NaN or infinite, where the run else stops')
    parser.add_argument('--spare-dir', metavar='DIR', help='folder on another disk for the last '
                        'checkpoint, if the work dir has no room for it')
    parser.add_argument('--wait-for-disk', type=float, default=PATIENCE, metavar='SECONDS',
                        help='wait so long for room for the last checkpoint (default: %(default)s; '
                        f'with --spare-dir at most {PATIENCE_BEFORE_SPARE}), then fail')
    parser.add_argument('--no-validate', action='store_true', help='no evaluation during training')
    parser.add_argument('--seed', type=int,
                        help='default: that of the resumed run, else a new one')
    parser.add_argument('--diff_seed', '--diff-seed', action='store_true',
                        help='a different seed on every rank')
    parser.add_argument('--deterministic', action=argparse.BooleanOptionalAction, default=False,
                        help='deterministic kernels on a GPU, so that a resumed run is exact; '
                        'dist_train.sh sets it')


def start_run(args: argparse.Namespace, splits: Collection[str] = ('train', 'val'),
              owns_work_dir: bool = True, sweep: Mapping[str, object] | None = None) -> Run:
    """Sets up device, process group and log, and prepares the run of a command line.

    Args:
        args: Parsed command line with the options of :func:`add_common_arguments`.
        splits: Data sets to build: 'train', 'val', 'test'.
        owns_work_dir: See :class:`.options.RunOptions`.
        sweep: Settings of a sweep that replace those of the config.

    Raises:
        InputError: If something in the command line, the config or the data is wrong.
    """
    options = replace(RunOptions.of(args), owns_work_dir=owns_work_dir)
    trains = 'test' not in splits
    cfg = load_config(args.config, args.cfg_options, trains)
    if sweep is not None:
        cfg.sweep = {**(cfg.get('sweep') or {}), **sweep}
    cfg, notes = resolve_config(cfg, options)
    unread = check_config(cfg, trains=trains)
    timestamp = _start(cfg, options)
    for note in notes:
        get_root_logger().warning('%s', note)
    if unread:
        get_root_logger().warning('nothing is known to read these keys of the config; correct them '
                                  'if they are mistyped: %s', ', '.join(unread))
    if cfg.get('sweep') and options.seed is None and options.auto_resume:
        options = replace(options, seed=broadcast_from_rank0(seed_of_sweep(cfg.work_dir)))
    run = prepare_run(cfg, options, splits, timestamp=timestamp)
    if owns_work_dir and get_dist_info()[0] == 0:
        atomic_write(osp.join(cfg.work_dir, osp.basename(args.config)), run.record.dump())
    return run


def _open_log(logger: logging.Logger, path: str) -> None:
    """Lets a logger of mmcv write into a file, too, in the form of what it prints."""
    handler = LogFile(path)
    handler.setFormatter(logger.handlers[0].formatter)
    logger.addHandler(handler)


def _start(cfg: Config, options: RunOptions) -> str:
    """Sets up device, process group and log; returns the timestamp that names the log."""
    notes: list[str] = []
    torch.backends.cudnn.benchmark = bool(cfg.get('cudnn_benchmark'))
    if options.deterministic:
        use_deterministic_kernels(options.device)
    if options.launcher != 'none':
        notes = init_process_group(options.launcher, options.device,
                                   DistParams.of(cfg.get('dist_params')))
    elif options.device == 'cuda':
        use_gpu(options.gpu_id)
    timestamp = time.strftime('%Y%m%d_%H%M%S', time.localtime())
    rank, world_size = get_dist_info()
    if rank == 0:
        os.makedirs(cfg.work_dir, exist_ok=True)
        if options.owns_work_dir:
            lock_work_dir(cfg.work_dir)
            check_spare_folder(options.spare_dir)
    if world_size > 1:
        dist.barrier()
    logger = get_root_logger(log_level=cfg.get('log_level', 'INFO'))
    if rank == 0 and options.owns_work_dir:
        _open_log(logger, osp.join(cfg.work_dir, f'{timestamp}.log'))
    logger.propagate = False
    loader_options(cfg, 'train')  # Of these the next line reads the number of workers.
    setup_multi_processes(cfg)
    for note in notes:
        logger.info('%s', note)
    if options.device == 'cuda' and (taken := taken_by_others(torch.cuda.current_device())):
        # On ranks other than 0 mmseg's logger shows errors alone.
        logger.log(logging.WARNING if rank == 0 else logging.ERROR, '%s', taken)
    if options.owns_work_dir:
        env = '\n'.join(f'{key}: {value}' for key, value in collect_env().items())
        logger.info('environment\n%s', env)
    return timestamp
