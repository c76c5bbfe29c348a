"""Writes a page on test results: python tools/report.py RESULTS [RESULTS_B] [--out PAGE.html].

RESULTS is the eval_*.json that `tools/test.py CONFIG CHECKPOINT --eval mIoU` writes, or the work
dir that it lies in.
"""
import argparse
import os.path as osp

from _arguments import add_debug
from _command_line import Parser, existing, fail, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        description='Write one HTML page on a test run, or on two that are compared')
    parser.add_argument('results', help='eval_*.json of tools/test.py --eval, or its work dir '
                        '(the newest in it)')
    parser.add_argument('other', nargs='?', metavar='results_b',
                        help='results of another run on the same images: B is compared with A')
    parser.add_argument('--out', help='the page; default: beside the (last) results, with .html')
    parser.add_argument('--images', type=int, default=6,
                        help='number of the worst and of the best images to show (default 6)')
    add_debug(parser)
    args = parser.parse_args()
    if args.images < 0:
        fail(f'--images {args.images}: expected 0 or more')
    return existing(args, 'results', 'other')


def main(args: argparse.Namespace) -> None:
    """Reads the results, writes the page and prints its path."""
    from mmseg_custom.evaluation import read_results
    from mmseg_custom.targets import try_target
    from mmseg_custom.visualization.report import write_report

    a = read_results(args.results)
    b = read_results(args.other) if args.other else None
    out = args.out or osp.splitext((b or a).path)[0] + ('_compared.html' if b else '.html')
    try_target(out)
    write_report(out, a, b, args.images)
    print(out)


if __name__ == '__main__':
    start(parse_args, main)
