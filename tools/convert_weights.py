"""Converts InternViT's weights: python tools/convert_weights.py SRC DST [options]."""
import argparse

from _arguments import add_debug
from _command_line import CHOICES, Parser, existing, start

DTYPES = ('bfloat16', 'float16', 'float32')


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        description='Convert the weights of an InternViT: from a .pth, a safetensors file or a '
        'Hugging Face folder (of the vision network or of a whole vision-language model) to one '
        'of these')
    parser.add_argument('source', metavar='SRC', help='file or folder')
    parser.add_argument('target', metavar='DST', help='file ending in .pth or .safetensors, or a '
                        'folder that transformers loads')
    parser.add_argument('--to', choices=CHOICES.WEIGHT_FORMS,
                        help='default: from the ending of DST')
    parser.add_argument('--dtype', choices=DTYPES, help='default: as it is in SRC')
    parser.add_argument('--num-heads', type=int, help='attention heads, for the folder of a '
                        'network that is neither InternViT-6B nor InternViT-300M')
    parser.add_argument('--shard-gb', type=float, default=CHOICES.SHARD_BYTES / 1e9,
                        help='largest file in the folder, in 10^9 bytes (default: %(default)g)')
    parser.add_argument('--check-finite', action='store_true', help='refuse NaN and infinity')
    add_debug(parser)
    return existing(parser.parse_args(), 'source')


def main(args: argparse.Namespace) -> None:
    """Converts, and prints what was written."""
    import torch

    from mmseg_custom.checkpoint.convert import convert, form_of

    convert(args.source, args.target, args.to or form_of(args.target),
            dtype=args.dtype and getattr(torch, args.dtype), num_heads=args.num_heads,
            shard_bytes=int(args.shard_gb * 1e9), check_finite=args.check_finite,
            show_progress=True)
    print(f'written: {args.target}')


if __name__ == '__main__':
    start(parse_args, main)
