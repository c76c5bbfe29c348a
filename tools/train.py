"""Trains a segmentor: python tools/train.py CONFIG [options]."""
import argparse

import _root  # noqa: F401

from mmseg_custom.distributed.options import ENGINES
from mmseg_custom.engine import cli
from mmseg_custom.engine.config import default_work_dir, load_config
from mmseg_custom.engine.sweep import start_sweep
from mmseg_custom.engine.train import dump_config, find_resume, meta_of, train


def parse_args() -> argparse.Namespace:
    """Reads the command line: mmseg 0.30's options, and ``--device`` and ``--debug``."""
    parser = argparse.ArgumentParser(description='Train a segmentor')
    parser.add_argument('config', help='config file')
    cli.add_common_arguments(parser)
    cli.add_training_arguments(parser)
    parser.add_argument('--load-from', help='checkpoint to take the weights from')
    parser.add_argument('--resume-from', help='checkpoint to go on from')
    parser.add_argument('--engine', choices=ENGINES, help='how the run is spread over processes; '
                        'default: engine.type of the config, else auto (one process alone, DDP '
                        'where the backbone is frozen, FSDP2 where it is trained)')
    return parser.parse_args()


def main() -> None:
    """Sets up the run and trains."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config)
    cfg.load_from = args.load_from or cfg.get('load_from')
    cfg.resume_from = args.resume_from or cfg.get('resume_from')
    cfg.auto_resume = args.auto_resume
    cfg.total_batch = cfg.get('total_batch') if args.total_batch is None else args.total_batch
    if args.engine:
        cfg.engine = {**(cfg.get('engine') or {}), 'type': args.engine}
    if cfg.get('sweep'):
        start_sweep(args, cfg)
        return
    device, timestamp = cli.start(args, cfg, log=True)
    cfg.resume_from = find_resume(cfg)
    if args.seed is None and cfg.resume_from:
        args.seed = meta_of(cfg.resume_from).get('seed')
    cfg.diff_seed = args.diff_seed
    cfg.seed = cli.seed_everything(args.seed, args.diff_seed, args.deterministic)
    dump_config(cfg, args.config)
    train(cfg, device, validate=not args.no_validate, timestamp=timestamp)


if __name__ == '__main__':
    cli.run(main)
