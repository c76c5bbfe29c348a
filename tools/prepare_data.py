"""Prepares a data set: python tools/prepare_data.py ade20k ADEChallengeData2016.zip."""
import argparse
import os

import _root  # noqa: F401

from mmseg_custom.datasets.prepare import LAYOUTS, PrepareOptions, prepare, prepare_own
from mmseg_custom.engine import cli
from mmseg_custom.errors import InputError

CUSTOM = 'custom'


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    archives = '\n'.join(f'  {layout.name}: ' + ', '.join(
        f'[{archive.name}]' if archive.optional else archive.name for archive in layout.archives)
        for layout in LAYOUTS.values())
    parser = argparse.ArgumentParser(
        description='Check, unpack and verify a data set, and write a manifest with hashes. A run '
        'that was stopped is resumed when it is started again.',
        epilog=f'archives, as published:\n{archives}',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_set', choices=[*LAYOUTS, CUSTOM], help='custom: '
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
    parser.add_argument('--debug', action='store_true', help='print the traceback of any error')
    return parser.parse_args()


def main() -> None:
    """Prepares the data set."""
    args = parse_args()
    options = PrepareOptions(args.out, args.subset, args.link, max(1, args.workers))
    if args.data_set != CUSTOM:
        prepare(args.data_set, args.archives, options)
    elif len(args.archives) > 1 or args.out:
        raise InputError('custom: expected one YAML file, which names the folders')
    else:
        prepare_own(args.archives[0], options)


if __name__ == '__main__':
    cli.run(main)
