"""Options that command-line tools share."""
import argparse
import os.path as osp
from typing import Any

from _command_line import CHOICES


class KeyValues(argparse.Action):
    """``KEY=VALUE`` options, which may be given several times.

    The values stay text; :mod:`mmseg_custom.engine.key_values` converts them.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, option_string: str | None = None) -> None:
        """Splits the options; exits with a usage error at the first that is not KEY=VALUE."""
        given = {}
        for word in values:
            key, sign, value = word.partition('=')
            if not key or not sign:
                parser.error(f'{option_string} {word}: expected KEY=VALUE, without spaces around '
                             "the =; what holds spaces is quoted: KEY='a b'")
            given[key] = value
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), **given})


def metric(name: str) -> str:
    """Checks a metric of ``--eval``; of data sets that measure in their own way, any name may be.

    Raises:
        ArgumentTypeError: If the name differs from a known one by upper case or a letter alone.
    """
    known = (*CHOICES.MMSEG_METRICS, CHOICES.BOUNDARY, CHOICES.CITYSCAPES)
    for one in () if name in known else known:
        a, b = name.lower(), one.lower()
        same = len(osp.commonprefix([a, b]))  # Then: a letter replaced, left out, or too many.
        if b[same + 1:] == a[same + 1:] or b[same + 1:] == a[same:] or b[same:] == a[same + 1:]:
            raise argparse.ArgumentTypeError(f'{name} is unknown: did you mean {one}?')
    return name


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that training and testing have in common, mmseg 0.30's and our own."""
    add_device(parser)
    add_debug(parser)
    parser.add_argument('--check-finite', action='store_true',
                        help='refuse weights that hold NaN or infinity (reads them all)')
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results; default: '
                        'work_dirs/<name of the config>')
    add_cfg_options(parser, 'optimizer.lr=1e-4 data.samples_per_gpu=4 '
                    'model.backbone.out_indices=[23]', '--options')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)  # Old launchers pass it.
    gpus = parser.add_mutually_exclusive_group()
    gpus.add_argument('--gpu-id', type=int, default=0, help='GPU of a run in one process')
    gpus.add_argument('--gpu-ids', type=int, nargs='+', help='deprecated: only the first is used')
    gpus.add_argument('--gpus', type=int, help='deprecated: one process uses one GPU')


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that runs and sweeps have in common."""
    used = parser.add_mutually_exclusive_group()
    used.add_argument('--auto-resume', action='store_true',
                      help='resume from the newest complete checkpoint in the work dir')
    used.add_argument('--overwrite', action='store_true', help='start anew in a work dir that '
                      'holds checkpoints: after the first iteration they are removed, also the '
                      'best ones and latest.pth; logs and results stay')
    parser.add_argument('--total-batch', type=int, metavar='N', help='images of an optimizer step '
                        'over all processes: sets the samples per process and the accumulation')
    parser.add_argument('--allow-nonfinite', action='store_true', help='go on when the loss, the '
                        'gradient norm or a weight is NaN or infinite, where the run else stops')
    parser.add_argument('--spare-dir', metavar='DIR', help='folder on another disk for the last '
                        'checkpoint, if the work dir has no room for it')
    parser.add_argument('--wait-for-disk', type=float, default=CHOICES.PATIENCE, metavar='SECONDS',
                        help='wait so long for room for the last checkpoint (default: %(default)s; '
                        f'with --spare-dir at most {CHOICES.PATIENCE_BEFORE_SPARE}), then fail')
    parser.add_argument('--no-validate', action='store_true', help='no evaluation during training')
    parser.add_argument('--seed', type=int,
                        help='default: that of the resumed run, else a new one')
    parser.add_argument('--diff_seed', '--diff-seed', action='store_true',
                        help='a different seed on every rank')
    parser.add_argument('--deterministic', action=argparse.BooleanOptionalAction, default=False,
                        help='deterministic kernels on a GPU, so that a resumed run is exact; '
                        'dist_train.sh sets it')


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``."""
    parser.add_argument('--device', choices=('cuda', 'cpu'),
                        help='default: cuda if there is a GPU')


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Adds ``--debug``."""
    parser.add_argument('--debug', action='store_true', help='print the traceback of any error')


def add_cfg_options(parser: argparse.ArgumentParser, examples: str = '', *aliases: str) -> None:
    """Adds ``--cfg-options``."""
    parser.add_argument('--cfg-options', *aliases, nargs='+', action=KeyValues, default={},
                        metavar='KEY=VALUE', help='override settings of the config'
                        + (f', e.g. {examples}' if examples else ''))
