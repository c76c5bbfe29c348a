"""Starts the run of a command line: config, device, process group, log."""
import argparse
import logging
import os
import os.path as osp
import time
from collections.abc import Collection, Mapping
from dataclasses import replace

import mmseg
import torch
import torch.distributed as dist
from mmcv import Config
from mmcv.runner import get_dist_info
from mmcv.utils import collect_env
from mmseg.utils import get_root_logger, setup_multi_processes

from ..distributed.collectives import broadcast_from_rank0
from ..distributed.devices import taken_by_others, use_gpu
from ..distributed.launch import DistParams, init_process_group
from ..errors import InputError, some_of
from ..files import atomic_write
from ..logs import log_details, saying
from ..processes import end_with_launcher
from ..version import __version__
from .before_start import check_before_start
from .config import load_checked_config, loader_options, resolve_config
from .config_file import is_copy, path_of_copy
from .determinism import use_deterministic_kernels
from .last_save import check_spare_folder
from .lock import lock_work_dir
from .options import RunOptions
from .overview import describe_run, describe_start
from .run import Run, prepare_run
from .screen import show_and_keep
from .stop_signals import nothing_done
from .sweep.records import seed_of_sweep
from .used_folder import check_work_dir


@nothing_done()
def start_run(args: argparse.Namespace, splits: Collection[str] = ('train', 'val'),
              owns_work_dir: bool = True, sweep: Mapping[str, object] | None = None) -> Run:
    """Sets up device, process group and log, and prepares the run of a command line.

    Args:
        args: Parsed command line with the options that runs have in common.
        splits: Data sets to build: 'train', 'val', 'test'.
        owns_work_dir: See :class:`.options.RunOptions`.
        sweep: Settings of a sweep that replace those of the config.

    Raises:
        InputError: If something in the command line, the config or the data is wrong.
    """
    options = replace(RunOptions.of(args), owns_work_dir=owns_work_dir)
    trains = 'test' not in splits
    cfg, unread = load_checked_config(args.config, args.cfg_options, trains, sweep)
    cfg, notes = resolve_config(cfg, options)
    check_before_start(cfg, options, splits)
    timestamp, log = _start(cfg, options, trains)
    for line in describe_start(args.config, cfg.work_dir, options.device, log):
        get_root_logger().info('%s', line)
    for note in notes:
        get_root_logger().warning('%s', note)
    if unread and not is_copy(args.config):  # the run that has written it has said so
        get_root_logger().warning('nothing is known to read these keys of the config; correct them '
                                  'if they are mistyped: %s', some_of(unread, shown=8))
    if cfg.get('sweep') and options.seed is None and options.auto_resume:
        options = replace(options, seed=broadcast_from_rank0(seed_of_sweep(cfg.work_dir)))
    with saying('reading the data sets and the checkpoint'):
        run = prepare_run(cfg, options, splits, timestamp=timestamp)
    for line in describe_run(run):
        get_root_logger().info('%s', line)
    if owns_work_dir:  # After what may be refused, which it would delay.
        # mmseg's function calls git in the current folder, which may be no repository.
        env = {**collect_env(), 'MMSegmentation': mmseg.__version__, 'InternViT-Seg': __version__}
        log_details('environment\n%s', '\n'.join(f'{key}: {env[key]}' for key in env))
    if owns_work_dir and get_dist_info()[0] == 0:
        atomic_write(path_of_copy(cfg.work_dir, args.config), run.dump())
    return run


def _log_of(work_dir: str, options: RunOptions, trains: bool, timestamp: str) -> str | None:
    """Returns the path of the log file of a run; None where it keeps none."""
    if options.owns_work_dir:
        return osp.join(work_dir, f'{timestamp}.log')
    return None if trains else osp.join(work_dir, f'test_{timestamp}.log')


def _start(cfg: Config, options: RunOptions, trains: bool) -> tuple[str, str | None]:
    """Sets up device, process group and log.

    Returns:
        The timestamp that names the files of the run, and the path of its log, if it has one.
    """
    notes: list[str] = []
    torch.backends.cudnn.benchmark = bool(cfg.get('cudnn_benchmark'))
    if options.deterministic:
        use_deterministic_kernels(options.device)
    if options.launcher == 'pytorch':
        end_with_launcher()
    if options.launcher != 'none':
        notes = init_process_group(options.launcher, options.device,
                                   DistParams.of(cfg.get('dist_params')))
    elif options.device == 'cuda':
        use_gpu(options.gpu_id)
    timestamp = time.strftime('%Y%m%d_%H%M%S', time.localtime())
    rank, world_size = get_dist_info()
    if rank == 0:
        try:
            os.makedirs(cfg.work_dir, exist_ok=True)
        except OSError as error:
            raise InputError(f'work dir {cfg.work_dir} cannot be made: {error.strerror}; give '
                             'another --work-dir') from error
        if options.owns_work_dir:
            lock_work_dir(cfg.work_dir)
            check_work_dir(cfg, options)
            check_spare_folder(options.spare_dir)
    if world_size > 1:
        dist.barrier()
    log = show_and_keep(
        cfg.get('log_level', 'INFO'),
        _log_of(cfg.work_dir, options, trains, timestamp) if rank == 0 else None,
        needed=options.owns_work_dir)
    logger = get_root_logger()
    loader_options(cfg, 'train')  # Of these the next line reads the number of workers.
    setup_multi_processes(cfg)
    for note in notes:
        logger.info('%s', note)
    if options.device == 'cuda' and (taken := taken_by_others(torch.cuda.current_device())):
        # On ranks other than 0 mmseg's logger shows errors alone.
        logger.log(logging.WARNING if rank == 0 else logging.ERROR, '%s', taken)
    return timestamp, log
