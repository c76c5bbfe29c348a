"""Tests a segmentor: python tools/test.py CONFIG CHECKPOINT --eval mIoU [options]."""
import argparse
from typing import NoReturn

from _arguments import KeyValues, add_common_arguments, metric
from _command_line import Parser, existing, start


def parse_args() -> argparse.Namespace:
    """Reads the command line: mmseg 0.30's options, and our own."""
    parser = Parser(description='Test (and evaluate) a segmentor')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    add_common_arguments(parser)
    parser.add_argument('--backbone', help='backbone file, for a checkpoint without it')
    parser.add_argument('--eval', nargs='+', type=metric, metavar='METRIC', help='mIoU, mDice, '
                        'mFscore, mBIoU (boundary IoU); cityscapes for that data set')
    parser.add_argument('--out', help='write the results to this .pkl file')
    parser.add_argument('--format-only', action='store_true',
                        help='write label files for a test server, without evaluation')
    parser.add_argument('--show', action='store_true', help='show pictures in a window')
    parser.add_argument('--show-dir', help='folder for painted pictures')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the paint, in (0, 1]')
    parser.add_argument('--aug-test', action='store_true', help='flips and six scales')
    parser.add_argument('--eval-options', nargs='+', action=KeyValues, default={},
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
    return existing(args, 'config', 'checkpoint', '--backbone')


def main(args: argparse.Namespace) -> None:
    """Prepares the run, predicts, and writes what was asked for."""
    from mmcv.runner import get_dist_info

    from mmseg_custom.checkpoint.integrity import finish_checks
    from mmseg_custom.engine.loaders import build_test_loader
    from mmseg_custom.engine.outputs import Outputs
    from mmseg_custom.engine.predict import predict
    from mmseg_custom.engine.start import start_run
    from mmseg_custom.engine.test import build_test_model

    run = start_run(args, splits=('test',), owns_work_dir=False)
    outputs = Outputs(run, args.config, args.checkpoint, args.eval, args.out, args.format_only,
                      args.show, args.show_dir, args.opacity, args.eval_options)
    if get_dist_info()[0] == 0:
        outputs.try_targets()
    model = build_test_model(run, args.backbone)
    loader = build_test_loader(run, 'test', args.skip_bad_images)
    found = predict(model, loader, run.device, outputs.keep(), outputs.painter())
    if found.stopped_by is not None:
        stop(found.stopped_by, outputs.write_partial(found))
    finish_checks()
    if get_dist_info()[0] == 0:
        for line in outputs.write(found):
            print(line)


def stop(error: BaseException, line: str) -> NoReturn:
    """Says what a run that ended early leaves, and raises what ended it."""
    from mmseg_custom.engine.blame import reading
    from mmseg_custom.errors import InputError

    if isinstance(error, KeyboardInterrupt):
        raise KeyboardInterrupt(line)
    print(f'\nstopped: {line}')
    if isinstance(error, InputError):
        print('use --skip-bad-images to skip samples that cannot be read')
    with reading('model, data.test or the checkpoint', 'fails in the test'):
        raise error


if __name__ == '__main__':
    start(parse_args, main)
