"""Draws the built-in demo data: python tools/make_demo_data.py [--out data/ade_demo]."""
import argparse

from _arguments import add_debug
from _command_line import Parser, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        description="Draw a small data set in ADE20K's layout, the same bytes for the same seed")
    parser.add_argument('--out', default='data/ade_demo', help='folder to draw it in')
    parser.add_argument('--train', type=int, default=160, help='number of training images')
    parser.add_argument('--val', type=int, default=40, help='number of validation images')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--force', action='store_true',
                        help='draw all images again, also where others were drawn before')
    add_debug(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Draws the set."""
    from examples.demo_data.write import make_demo_data

    make_demo_data(args.out, args.train, args.val, args.seed, args.force)


if __name__ == '__main__':
    start(parse_args, main)
