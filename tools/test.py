"""Tests a segmentor: python tools/test.py CONFIG CHECKPOINT --eval mIoU [options]."""
import argparse
import os.path as osp
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import _root  # noqa: F401
import mmcv
from mmcv.runner import get_dist_info
from mmseg.datasets import CustomDataset

from mmseg_custom.checkpoint.integrity import finish_checks
from mmseg_custom.datasets.nesting import innermost_datasets
from mmseg_custom.engine import cli
from mmseg_custom.engine.blame import reading
from mmseg_custom.engine.loaders import build_test_loader
from mmseg_custom.engine.options import UNTRAINED
from mmseg_custom.engine.painter import Painter
from mmseg_custom.engine.predict import Predictions, name_of, predict, save_partial
from mmseg_custom.engine.run import Run
from mmseg_custom.engine.test import build_test_model
from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import evaluate, metrics, pre_eval, write_results
from mmseg_custom.files import (
    SPARE_FOLDERS,
    as_save_error,
    atomic_path,
    try_target,
    write_or_rescue,
)


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
    parser.add_argument('--eval-options', nargs='+', action=cli.KeyValues, default={},
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
    if not 0 < args.opacity <= 1:
        parser.error(f'--opacity {args.opacity}: expected more than 0, at most 1')
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
    parts = innermost_datasets(dataset)
    for part in parts if on_files else ():
        if type(part).format_results is CustomDataset.format_results:
            raise InputError(f'--format-only: {type(part).__name__} has no format for a server; '
                             '--out writes the label maps')
    if args.eval == ['cityscapes'] and len(parts) > 1:
        raise InputError(f'--eval cityscapes: data.test has {len(parts)} data sets; test them one '
                         'after the other')
    if args.eval:
        metrics.check_metrics(dataset, args.eval)
    options = dict(args.eval_options)
    metrics.check_options(dataset, options, on_files)
    if on_files:
        options.setdefault('imgfile_prefix', osp.join(run.work_dir, 'format_results'))
    if get_dist_info()[0] == 0:
        try_targets(args, run, options)
    keep = None
    if on_files:
        keep = partial(_write_files, dataset, options)
    elif args.eval:
        keep = partial(pre_eval, dataset, boundary=metrics.BOUNDARY in args.eval)
    paint = None
    if args.show or args.show_dir:
        paint = Painter(dataset.PALETTE, args.show_dir, args.show, args.opacity,
                        dataset.img_dir if len(parts) > 1 else None)
    model = build_test_model(run, args.backbone)
    loader = build_test_loader(run, 'test', args.skip_bad_images)
    found = predict(model, loader, run.device, keep, paint)
    if found.stopped_by is not None:
        partial_results = osp.join(run.work_dir, f'partial_{run.timestamp}')
        with reading('model, data.test or the checkpoint', 'fails in the test'):
            stop(found.stopped_by, found, dataset, partial_results)
    finish_checks()
    if get_dist_info()[0] == 0:
        write(args, run, found, options)


def _write_files(dataset: CustomDataset, options: dict, labels: list, indices: list[int]) -> list:
    try:
        return dataset.format_results(labels, indices=indices, **options)
    except OSError as error:  # of a full disk, Pillow does not say which file it was
        raise as_save_error(error, osp.join(options['imgfile_prefix'], '')) from error


def try_targets(args: argparse.Namespace, run: Run, options: dict) -> None:
    """Tries to write in all places that are to be written, before anything is predicted."""
    for path in (args.out, args.eval and results_path(args, run)):
        if path:
            try_target(path)
    for folder in (args.show_dir, options.get('imgfile_prefix')):
        if folder:
            try_target(osp.join(folder, 'image.png'))


def write(args: argparse.Namespace, run: Run, found: Predictions, options: dict) -> None:
    """Prints and writes what was asked for."""
    print()
    if found.skipped:
        print(f'{len(found.skipped)} of {found.total} images are skipped:',
              *(f'  {found.skipped[index]}' for index in sorted(found.skipped)), sep='\n')
    results, dataset = found.in_order(), run.data['test']
    if not results:
        raise InputError(f'none of the {found.total} images could be read')
    lost = []
    if args.out:
        lost += rescue(args.out, partial(_dump, results), run)
    if args.format_only:
        print(f'label files: {options["imgfile_prefix"]}')
    if args.eval:
        evaluation = evaluate(dataset, results, args.eval, sorted(found.results), **options)
        lost += rescue(results_path(args, run), partial(
            write_results, evaluation=evaluation, records=results, dataset=dataset, cfg=run.cfg,
            config=args.config, checkpoint=args.checkpoint, device=run.device,
            seconds=found.seconds, memory=found.memory,
            skipped=[name_of(dataset, index) for index in sorted(found.skipped)]), run)
    if lost:
        raise InputError('; '.join(lost))


def results_path(args: argparse.Namespace, run: Run) -> str:
    """Returns the path of the metrics."""
    scale = 'multi' if args.aug_test else 'single'
    return osp.join(run.work_dir, f'eval_{scale}_scale_{run.timestamp}.json')


def rescue(path: str, dump: Callable[[str], object], run: Run) -> list[str]:
    """Writes a file at the end of a run, elsewhere if need be; returns what is to be said of it."""
    written = write_or_rescue(path, dump, [run.work_dir, *SPARE_FOLDERS])
    hint = ' (tools/report.py makes a page of them)' if path.endswith('.json') else ''
    print(f'{"metrics" if hint else "results"}: {written}{hint}')
    return [] if written == path else [f'{path} could not be written: its content is in {written}']


def _dump(results: list, path: str) -> None:
    with atomic_path(path) as part:
        mmcv.dump(results, part, file_format='pkl')


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
