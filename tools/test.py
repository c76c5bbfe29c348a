"""Tests a segmentor: python tools/test.py CONFIG CHECKPOINT --eval mIoU [options]."""
import argparse
import os.path as osp
from functools import partial
from typing import NoReturn

import _root  # noqa: F401
import mmcv
from mmcv import DictAction
from mmcv.runner import get_dist_info
from mmseg.datasets import CustomDataset

from mmseg_custom.checkpoint.integrity import finish_checks
from mmseg_custom.engine import cli
from mmseg_custom.engine.loaders import build_test_loader
from mmseg_custom.engine.options import UNTRAINED
from mmseg_custom.engine.painter import Painter
from mmseg_custom.engine.predict import Predictions, name_of, predict, save_partial
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.test import build_test_model
from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import evaluate, metrics, pre_eval, write_results
from mmseg_custom.files import atomic_path


def parse_args() -> argparse.Namespace:
    """Reads the command line: mmseg 0.30's options, and our own."""
    parser = argparse.ArgumentParser(description='Test (and evaluate) a segmentor')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    cli.add_common_arguments(parser)
    parser.add_argument('--backbone', help='backbone file, for a checkpoint without it')
    parser.add_argument('--eval', nargs='+', metavar='METRIC', help='mIoU, mDice, mFscore, '
                        'mBIoU (boundary IoU); cityscapes for that data set')
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
    parser.add_argument('--skip-bad-images', action='store_true',
                        help='skip the samples that cannot be read, and name them')
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
    if args.checkpoint != UNTRAINED and not osp.exists(args.checkpoint):
        raise InputError(f'checkpoint {args.checkpoint} does not exist')
    return args


def main() -> None:
    """Prepares the run, predicts, and writes what was asked for."""
    args = parse_args()
    run = cli.start_run(args, splits=('test',), owns_work_dir=False)
    dataset = run.data['test']
    on_files = args.format_only or args.eval == ['cityscapes']
    if on_files and type(dataset).format_results is CustomDataset.format_results:
        raise InputError(f'--format-only: {type(dataset).__name__} has no format for a server; '
                         '--out writes the label maps')
    options = dict(args.eval_options)
    keep = None
    if on_files:
        options.setdefault('imgfile_prefix', osp.join(run.work_dir, 'format_results'))
        keep = partial(_write_files, dataset, options)
    elif args.eval:
        metrics.check_metrics(dataset, args.eval)
        keep = partial(pre_eval, dataset, boundary=metrics.BOUNDARY in args.eval)
    paint = None
    if args.show or args.show_dir:
        paint = Painter(dataset.PALETTE, args.show_dir, args.show, args.opacity)
    model = build_test_model(run, args.backbone)
    loader = build_test_loader(run, 'test', args.skip_bad_images)
    found = predict(model, loader, run.device, keep, paint)
    if found.stopped_by is not None:
        stop(found.stopped_by, found, dataset, osp.join(run.work_dir, f'partial_{run.timestamp}'))
    finish_checks()
    if get_dist_info()[0] == 0:
        write(args, run, found, options)


def _write_files(dataset: CustomDataset, options: dict, labels: list, indices: list[int]) -> list:
    return dataset.format_results(labels, indices=indices, **options)


def write(args: argparse.Namespace, run: Run, found: Predictions, options: dict) -> None:
    """Prints and writes what was asked for."""
    print()
    if found.skipped:
        print(f'{len(found.skipped)} of {found.total} images are skipped:',
              *(f'  {found.skipped[index]}' for index in sorted(found.skipped)), sep='\n')
    results, dataset = found.in_order(), run.data['test']
    if not results:
        raise InputError(f'none of the {found.total} images could be read')
    if args.out:
        with atomic_path(args.out) as part:
            mmcv.dump(results, part, file_format='pkl')
        print(f'results: {args.out}')
    if args.format_only:
        print(f'label files: {options["imgfile_prefix"]}')
    if args.eval:
        evaluation = evaluate(dataset, results, args.eval, **options)
        scale = 'multi' if args.aug_test else 'single'
        path = osp.join(run.work_dir, f'eval_{scale}_scale_{run.timestamp}.json')
        write_results(path, evaluation, results, dataset, run.cfg, config=args.config,
                      checkpoint=args.checkpoint, device=run.device, seconds=found.seconds,
                      memory=found.memory,
                      skipped=[name_of(dataset, index) for index in sorted(found.skipped)])
        print(f'metrics: {path} (tools/report.py makes a page of them)')


def stop(error: BaseException, found: Predictions, dataset: CustomDataset, path: str) -> NoReturn:
    """Saves the results of a run that ended early, says so, and raises what ended it."""
    rank, world_size = get_dist_info()
    line = save_partial(found, f'{path}_rank{rank}.pkl' if world_size > 1 else f'{path}.pkl',
                        dataset)
    if isinstance(error, KeyboardInterrupt):
        raise KeyboardInterrupt(line)
    print(f'\nstopped: {line}')
    if isinstance(error, InputError):
        print('use --skip-bad-images to skip samples that cannot be read')
    raise error


if __name__ == '__main__':
    cli.run(main)
