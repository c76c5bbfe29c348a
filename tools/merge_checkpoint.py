"""Makes a small or sharded checkpoint whole: python tools/merge_checkpoint.py CKPT OUT."""
import argparse

import _root  # noqa: F401

from mmseg_custom.checkpoint.merge import merge, split
from mmseg_custom.engine import cli
from mmseg_custom.errors import InputError


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description='Make one file that loads anywhere mmcv does: of a checkpoint that was trained '
        'on a frozen backbone and the file of that backbone, or of the folder (.dcp) that the '
        'processes of sharded training wrote')
    parser.add_argument('checkpoint', metavar='CKPT', help='.pth, or a folder .dcp')
    parser.add_argument('target', metavar='OUT', help='.pth (classic, with metadata and '
                        'optimizer) or .safetensors (weights alone)')
    parser.add_argument('--backbone', metavar='FILE', help='the file of the backbone; default: '
                        'the one that the checkpoint names')
    parser.add_argument('--split', action='store_true', help='the other way round: leave out of '
                        'a classic checkpoint what the file of its backbone holds')
    parser.add_argument('--debug', action='store_true', help='print the traceback of any error')
    return parser.parse_args()


def main() -> None:
    """Merges or splits, and prints what was written."""
    args = parse_args()
    if not args.split:
        merge(args.checkpoint, args.target, args.backbone, show_progress=True)
        print(f'written: {args.target}')
        return
    if args.backbone is None:
        raise InputError('--split needs --backbone FILE: what that file holds is left out')
    left_out, kept = split(args.checkpoint, args.target, args.backbone)
    print(f'written: {args.target} ({kept} tensors; {left_out} are left to {args.backbone})')


if __name__ == '__main__':
    cli.run(main)
