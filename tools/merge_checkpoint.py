"""Makes a checkpoint whole, and merges adapters: python tools/merge_checkpoint.py CKPT OUT."""
import argparse

from _arguments import add_debug
from _command_line import Parser, existing, fail, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        description='Make one file that loads anywhere mmcv does: of a checkpoint that was trained '
        'on a frozen backbone and the file of that backbone, of the folder (.dcp) that the '
        'processes of sharded training wrote, or of a checkpoint of DeepSpeed. Adapters (LoRA) are '
        'merged into their layers, or become a folder that peft loads; such a folder is merged '
        'into a backbone')
    parser.add_argument('checkpoint', metavar='CKPT', help='.pth, a folder .dcp, a folder with '
                        'adapter_config.json, or one of DeepSpeed')
    parser.add_argument('target', metavar='OUT', help='.pth (classic, with metadata and '
                        'optimizer), .safetensors (weights alone) or, of a checkpoint with '
                        'adapters, a name without an ending: a folder for peft')
    parser.add_argument('--backbone', metavar='FILE', help='the file of the backbone; default: '
                        'the one that the checkpoint names')
    parser.add_argument('--split', action='store_true', help='the other way round: leave out of '
                        'a classic checkpoint what the file of its backbone holds')
    add_debug(parser)
    args = parser.parse_args()
    if args.split and args.backbone is None:
        fail('--split needs --backbone FILE: what that file holds is left out')
    return existing(args, 'checkpoint', '--backbone')


def main(args: argparse.Namespace) -> None:
    """Merges or splits, and prints what was written."""
    from mmseg_custom.checkpoint.merge import merge, split

    if not args.split:
        loss = merge(args.checkpoint, args.target, args.backbone, show_progress=True)
        print(f'written: {args.target}')
        if loss.share is not None:
            print('layers with adapters are float32; rounding them to bfloat16 would change them '
                  + (f'{loss.share:.1f} times as much as the adapters do' if loss.share > 1 else
                     f'by {loss.share:.1%} of what the adapters do'))
        return
    left_out, kept = split(args.checkpoint, args.target, args.backbone)
    print(f'written: {args.target} ({kept} tensors; {left_out} are left to {args.backbone})')


if __name__ == '__main__':
    start(parse_args, main)
