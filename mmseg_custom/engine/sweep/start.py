"""Command line -> sweep: what tools/sweep.py, and tools/train.py with ``sweep`` in a config, do."""
import argparse
import json
import os.path as osp

from mmcv import Config

from ...distributed.collectives import broadcast_from_rank0
from .. import cli
from ..train import dump_config
from .report import NAME
from .train import sweep


def start_sweep(args: argparse.Namespace, cfg: Config) -> None:
    """Starts a sweep; without ``--seed`` one that goes on keeps the seed that it had.

    Args:
        args: The options of tools/train.py.
        cfg: With what the options say, and ``sweep``.
    """
    device, timestamp = cli.start(args, cfg, log=True)
    if args.seed is None and cfg.auto_resume:
        args.seed = broadcast_from_rank0(_seed_of(cfg.work_dir))
    cfg.diff_seed = args.diff_seed
    cfg.seed = cli.seed_everything(args.seed, args.diff_seed, args.deterministic)
    dump_config(cfg, args.config)
    sweep(cfg, args.config, device, validate=not args.no_validate, timestamp=timestamp)


def _seed_of(work_dir: str) -> int | None:
    try:
        with open(osp.join(work_dir, NAME)) as file:
            return json.load(file)['seed']
    except (FileNotFoundError, ValueError, KeyError):
        return None
