"""Prepares a data set: python tools/prepare_data.py ade20k ADEChallengeData2016.zip."""
import argparse
import os

from _arguments import add_debug
from _command_line import Parser, alone, existing, fail, start

CUSTOM = 'custom'


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    layouts = alone('datasets.prepare.layouts').LAYOUTS
    archives = '\n'.join(f'  {layout.name}: ' + ', '.join(
        f'[{archive.name}]' if archive.optional else archive.name for archive in layout.archives)
        for layout in layouts.values())
    parser = Parser(
        description='Check, unpack and verify a data set, and write a manifest with hashes. A run '
        'that was stopped is resumed when it is started again.',
        epilog=f'archives, as published:\n{archives}',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_set', choices=[*layouts, CUSTOM], help='custom: '
                        'your own, see docs/custom_dataset.md')
    parser.add_argument('archives', nargs='+', metavar='ARCHIVE', help='archive, or a folder that '
                        'it was unpacked to (the one in OUT is verified in place); for '
                        'custom, the YAML file that describes it')
    parser.add_argument('--out', help='folder to prepare it in; default: where the recipes expect '
                        'it, below data/')
    parser.add_argument('--subset', action='store_true', help='accept any number of samples')
    parser.add_argument('--link', action='store_true', help='link to the files of a folder '
                        'instead of copying them')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes that verify')
    add_debug(parser)
    args = parser.parse_args()
    if args.data_set == CUSTOM and (len(args.archives) > 1 or args.out):
        fail('custom: expected one YAML file, which names the folders')
    return existing(args, 'archives')


def main(args: argparse.Namespace) -> None:
    """Prepares the data set."""
    from mmseg_custom.datasets.prepare import PrepareOptions, prepare, prepare_own

    options = PrepareOptions(args.out, args.subset, args.link, max(1, args.workers))
    if args.data_set != CUSTOM:
        prepare(args.data_set, args.archives, options)
    else:
        prepare_own(args.archives[0], options)


if __name__ == '__main__':
    start(parse_args, main)
