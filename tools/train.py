"""Trains a segmentor: python tools/train.py CONFIG [options]."""
import argparse

from _arguments import add_common_arguments, add_training_arguments
from _command_line import CHOICES, Parser, existing, start


def parse_args() -> argparse.Namespace:
    """Reads the command line: mmseg 0.30's options, and our own."""
    parser = Parser(description='Train a segmentor')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    add_training_arguments(parser)
    parser.add_argument('--load-from', help='checkpoint to take the weights from')
    parser.add_argument('--load-from-without', nargs='+', metavar='PART', help='parts of the '
                        'network that start anew in the place of those of --load-from, e.g. '
                        'decode_head.conv_seg auxiliary_head for other classes')
    parser.add_argument('--resume-from', help='checkpoint to resume from')
    parser.add_argument('--engine', choices=CHOICES.ENGINES, help='how the run is spread over '
                        'processes; default: engine.type of the config, else auto (one process '
                        'alone, DDP where less than half of the backbone is trained, else FSDP2)')
    args = parser.parse_args()
    resumes = args.auto_resume or args.resume_from  # The file of the first start may be gone then.
    return existing(args, 'config', '--resume-from', *([] if resumes else ['--load-from']))


def main(args: argparse.Namespace) -> None:
    """Prepares the run and trains."""
    from mmseg_custom.doctor.before_training import decide_recomputation
    from mmseg_custom.engine.start import start_run
    from mmseg_custom.engine.sweep import sweep
    from mmseg_custom.engine.train import train

    run = start_run(args)
    if run.cfg.get('sweep'):
        sweep(run, decide_recomputation)
    else:
        train(decide_recomputation(run))


if __name__ == '__main__':
    start(parse_args, main)
