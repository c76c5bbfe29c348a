"""Tests a segmentor: python tools/test.py CONFIG CHECKPOINT --eval mIoU [options]."""
import argparse
import os.path as osp

import _root  # noqa: F401
import mmcv
from mmcv import DictAction
from mmcv.runner import get_dist_info
from mmseg.datasets import build_dataset

from mmseg_custom.engine import cli
from mmseg_custom.engine.config import augment_test, default_work_dir, load_config
from mmseg_custom.engine.test import build_test_loader, load_model, predict
from mmseg_custom.errors import InputError


def parse_args() -> argparse.Namespace:
    """Reads the command line: mmseg 0.30's options, and ``--device`` and ``--debug``."""
    parser = argparse.ArgumentParser(description='Test (and evaluate) a segmentor')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    cli.add_common_arguments(parser)
    parser.add_argument('--backbone', help="the backbone's file, for a checkpoint without it")
    parser.add_argument('--eval', nargs='+', metavar='METRIC', help='mIoU, mDice, mFscore; '
                        'cityscapes for that data set')
    parser.add_argument('--out', help='write the results to this .pkl file')
    parser.add_argument('--format-only', action='store_true',
                        help='write label files for a test server, without evaluation')
    parser.add_argument('--show', action='store_true', help='show pictures in a window')
    parser.add_argument('--show-dir', help='folder for painted pictures')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the paint, in (0, 1]')
    parser.add_argument('--aug-test', action='store_true', help='flips and six scales')
    parser.add_argument('--eval-options', nargs='+', action=DictAction, default={},
                        metavar='KEY=VALUE', help='options of the evaluation or of '
                        'format_results, e.g. imgfile_prefix=results/')
    parser.add_argument('--gpu-collect', action='store_true',
                        help="accepted for mmseg's sake: results are gathered without files")
    parser.add_argument('--tmpdir', help="accepted for mmseg's sake, see --gpu-collect")
    args = parser.parse_args()
    if not (args.eval or args.out or args.format_only or args.show or args.show_dir):
        parser.error('nothing to do: give --eval, --out, --format-only, --show or --show-dir')
    if args.eval and args.format_only:
        parser.error('--eval and --format-only exclude each other')
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out}: expected a name that ends in .pkl')
    return args


def main() -> None:
    """Sets up the run, predicts, and writes what was asked for."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or default_work_dir(args.config)
    cfg.data.test.test_mode = True
    if args.aug_test:
        augment_test(cfg)
    if args.checkpoint != 'none' and not osp.exists(args.checkpoint):
        raise InputError(f'checkpoint {args.checkpoint} does not exist')
    device, timestamp = cli.start(args, cfg, log=False)
    dataset = build_dataset(cfg.data.test)
    on_files = args.format_only or args.eval == ['cityscapes']
    options = dict(args.eval_options)
    if on_files:
        options.setdefault('imgfile_prefix', osp.join(cfg.work_dir, 'format_results'))
    results = predict(
        load_model(cfg, args.checkpoint, dataset, device, args.backbone),
        build_test_loader(cfg, dataset, device, 'test'), device,
        pre_eval=bool(args.eval) and not on_files, format_args=options if on_files else None,
        show=args.show, show_dir=args.show_dir, opacity=args.opacity)
    if get_dist_info()[0] == 0:
        print()
        if args.out:
            mmcv.dump(results, args.out)
            print(f'results: {args.out}')
        if args.format_only:
            print(f'label files: {options["imgfile_prefix"]}')
        if args.eval:
            metric = dataset.evaluate(results, metric=args.eval, **options)
            scale = 'multi' if args.aug_test else 'single'
            path = osp.join(cfg.work_dir, f'eval_{scale}_scale_{timestamp}.json')
            mmcv.dump(dict(config=args.config, metric=metric), path, indent=4)
            print(f'figures: {path}')


if __name__ == '__main__':
    cli.run(main)
