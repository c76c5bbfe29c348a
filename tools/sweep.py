"""Trains many heads at once: python tools/sweep.py CONFIG --lr 1e-5 4e-5 --layers 23 47 [options].

Where a part of the backbone is trained (--train-last 2 4, or a config with LoRA and --rank 8 16),
the combinations are runs one after another.

With several processes: write ``sweep=dict(lr=[...], ...)`` into a config, and
``sh dist_train.sh CONFIG N``.
"""
import argparse

from _arguments import add_common_arguments, add_training_arguments
from _command_line import CHOICES, Parser, existing, start


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description='Train many heads on one frozen backbone, or runs that train a '
                    'part of the backbone one after another')
    parser.add_argument('config', help='config file, with or without sweep=dict(...)')
    add_common_arguments(parser)
    add_training_arguments(parser)
    parser.add_argument('--lr', nargs='+', type=float, help='learning rates')
    parser.add_argument('--weight-decay', nargs='+', type=float, help='weight decays')
    parser.add_argument('--layers', nargs='+', type=block, metavar='BLOCK',
                        help='blocks from 0 on, each for linear heads; 11,23,35,47 for UPerNet')
    parser.add_argument('--head', nargs='+', choices=CHOICES.SWEPT_HEADS,
                        help="default: the config's own")
    parser.add_argument('--train-last', nargs='+', type=int, metavar='N',
                        help='numbers of last blocks that are trained, each in runs of its own')
    parser.add_argument('--rank', nargs='+', type=int, metavar='R', dest='r',
                        help='ranks of LoRA, for a config with model.backbone.adapt')
    parser.add_argument('--alpha', nargs='+', type=float, help='scales of LoRA')
    parser.add_argument('--heads-at-once', type=int, metavar='N',
                        help='at most N heads in a round; default: as many as fit in memory')
    return existing(parser.parse_args(), 'config')


def main(args: argparse.Namespace) -> None:
    """Prepares the sweep and trains."""
    from mmseg_custom.doctor.before_training import decide_recomputation
    from mmseg_custom.engine.start import start_run
    from mmseg_custom.engine.sweep import sweep

    given = {name: getattr(args, name) for name in (
        'lr', 'weight_decay', 'layers', 'head', 'train_last', 'r', 'alpha', 'heads_at_once')}
    run = start_run(args, sweep={name: value for name, value in given.items()
                                 if value is not None})
    sweep(run, decide_recomputation)


def block(text: str) -> int | list[int]:
    """'47' -> 47, '11,23,35,47' -> [11, 23, 35, 47]."""
    numbers = [int(number) for number in text.split(',')]
    return numbers if len(numbers) > 1 else numbers[0]


if __name__ == '__main__':
    start(parse_args, main)
