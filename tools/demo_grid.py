"""Makes a grid of images, ground truth and predictions: tools/demo_grid.py CONFIG LABELS OUT.png.

LABELS is a folder of predictions, as `tools/test.py CONFIG CHECKPOINT --format-only
--eval-options imgfile_prefix=LABELS` writes them.
"""
import argparse
import sys

from _arguments import add_debug
from _command_line import Parser, existing, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        description='Show images of the validation set with their ground truth and prediction')
    parser.add_argument('config', help='config file; its data.val lists the images')
    parser.add_argument('labels', help='folder of the predictions that tools/test.py '
                        '--format-only --eval-options imgfile_prefix=FOLDER wrote')
    parser.add_argument('out', help='the .png file to write')
    parser.add_argument('--rows', type=int, default=4, help='number of images')
    add_debug(parser)
    return existing(parser.parse_args(), 'config', 'labels')


def main(args: argparse.Namespace) -> None:
    """Chooses images, draws the grid and prints its path."""
    from mmseg_custom.datasets.build import build_test_dataset
    from mmseg_custom.engine.config import load_config
    from mmseg_custom.errors import InputError, refuse_failed
    from mmseg_custom.targets import try_target
    from mmseg_custom.visualization.grid import picture_grid, save_png
    from mmseg_custom.visualization.predictions import choose_rows, read_row

    cfg = load_config(args.config)
    try_target(args.out)
    dataset, rows = build_test_dataset(cfg.data.val), []
    failed: list[InputError] = []
    for index in choose_rows(dataset, args.rows, failed.append):
        try:
            rows.append(read_row(dataset, index, args.labels))
        except InputError as error:
            failed.append(error)
    if not rows:
        raise failed[0]
    save_png(picture_grid(rows, dataset.CLASSES, dataset.PALETTE), args.out)
    print(args.out)
    for one in failed:
        print(f'failed: {one}', file=sys.stderr)
    refuse_failed(list(map(str, failed)), len(dataset), 'images')


if __name__ == '__main__':
    start(parse_args, main)
