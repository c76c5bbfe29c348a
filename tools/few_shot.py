"""Few-shot lists: python tools/few_shot.py report | write."""
import argparse
import os
import sys

from _arguments import add_cfg_options, add_debug
from _command_line import CHOICES, Parser, existing, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description='Few-shot lists of training images')
    add_debug(parser)
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('report', help='which classes the images of a list show')
    one.add_argument('config', help='config file; its data.train is read')
    one.add_argument('--fraction', nargs='+', default=list(CHOICES.FEW_SHOT_PARTS),
                     help='parts of the data, default: %(default)s')
    one.add_argument('--seed', type=int, nargs='+', default=list(CHOICES.FEW_SHOT_SEEDS))
    one.add_argument('--classes', action='store_true', help='a line for each class as well')
    one.add_argument('--workers', type=int, default=os.cpu_count(), help='processes that read')
    add_cfg_options(one, 'data.train.data_root=/data/ADEChallengeData2016')
    two = commands.add_parser('write', help="write ADE20K's lists and their hashes as files")
    two.add_argument('--out', default='data/few_shot', help='folder, default: %(default)s')
    return existing(parser.parse_args(), 'config')


def main(args: argparse.Namespace) -> None:
    """Runs the command."""
    from mmseg_custom.datasets.few_shot.coverage import report, table
    from mmseg_custom.datasets.few_shot.lists import write
    from mmseg_custom.engine.config import load_config
    from mmseg_custom.errors import refuse_failed

    if args.command == 'write':
        write(args.out)
        print(f'{len(CHOICES.FEW_SHOT_SEEDS)} lists and their hashes: {args.out}')
        return
    cfg = load_config(args.config, args.cfg_options)
    found = report(cfg.data.train, args.fraction, args.seed, args.workers)
    print(table(found, each_class=args.classes))
    unread = {name: reason for one in found for name, reason in one.unread.items()}
    for reason in unread.values():
        print(f'failed: {reason}', file=sys.stderr)
    refuse_failed(list(unread.values()), max(len(one.chosen.names) for one in found), 'labels')


if __name__ == '__main__':
    start(parse_args, main)
