"""Writes a page on test results: python tools/report.py RESULTS [RESULTS_B ...] [--out PAGE.html].

RESULTS is the eval_*.json that `tools/test.py CONFIG CHECKPOINT --eval mIoU` writes, or the work
dir that it lies in. Two are compared, more become a leaderboard: tools/report.py work_dirs/*. So
do the tested heads or runs of a sweep: tools/report.py work_dirs/SWEEP.
"""
import argparse
import os.path as osp
import sys
from functools import partial

from _arguments import add_debug
from _command_line import Parser, existing, fail, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        description='Write an HTML page on a test run, on two that are compared, or on many')
    parser.add_argument('results', nargs='+',
                        help='eval_*.json of tools/test.py --eval, or its work dir (the newest in '
                        'it); of two on the same images, the second is compared with the first; '
                        'more, and those of a sweep, become a leaderboard')
    parser.add_argument('--out', help='the page; default: beside the (last) results, with .html; '
                        'of a leaderboard, leaderboard.html in the folder of the sweep, or in that '
                        'which has all')
    parser.add_argument('--images', type=number_of_images, default=100, metavar='N',
                        help='number of the worst and of the best images to show (default 100), '
                        'or all')
    add_debug(parser)
    args = parser.parse_args()
    if args.images is not None and args.images < 0:
        fail(f'--images {args.images}: expected 0 or more')
    return existing(args, 'results')


def main(args: argparse.Namespace) -> None:
    """Reads the results, writes the page and prints its path."""
    from mmseg_custom.evaluation import read_results
    from mmseg_custom.progress import with_progress
    from mmseg_custom.targets import try_target
    from mmseg_custom.visualization.report import is_sweep, write_leaderboard, write_report

    if len(args.results) > 2 or any(map(is_sweep, args.results)):
        folder = args.results[0] if len(args.results) == 1 else osp.commonpath(
            [osp.dirname(osp.abspath(path)) for path in args.results])
        out = args.out or osp.join(folder, 'leaderboard.html')
        try_target(out)
        lines = write_leaderboard(out, args.results, partial(with_progress, unit='run'))
    else:
        a = read_results(args.results[0])
        b = read_results(args.results[1]) if len(args.results) > 1 else None
        out = args.out or osp.splitext((b or a).path)[0] + ('_compared.html' if b else '.html')
        try_target(out)
        lines = write_report(out, a, b, args.images, partial(with_progress, unit='picture'))
    print('\n'.join(lines), file=sys.stderr)
    print(out)


def number_of_images(text: str) -> int | None:
    """Reads a number of images; 'all' is None."""
    return None if text == 'all' else int(text)


if __name__ == '__main__':
    start(parse_args, main)
