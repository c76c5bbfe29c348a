"""Options that command-line tools share."""
import argparse
from typing import Any

from mmcv import DictAction

from .last_save import PATIENCE, PATIENCE_BEFORE_SPARE


class KeyValues(DictAction):
    """mmcv's ``KEY=VALUE`` options, with an error message for those without ``=``.

    They may be given several times; mmcv keeps those of the last time alone.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, option_string: str | None = None) -> None:
        """Parses the options; exits with a usage error at the first that is not KEY=VALUE."""
        for value in values:
            if not value.partition('=')[0] or '=' not in value:
                parser.error(f'{option_string} {value}: expected KEY=VALUE, without spaces')
        before = getattr(namespace, self.dest) or {}
        super().__call__(parser, namespace, values, option_string)
        setattr(namespace, self.dest, {**before, **getattr(namespace, self.dest)})


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that training and testing have in common, mmseg 0.30's and our own."""
    parser.add_argument('--device', choices=('cuda', 'cpu'),
                        help='default: cuda if there is a GPU')
    parser.add_argument('--debug', action='store_true', help='print the traceback of any error')
    parser.add_argument('--check-finite', action='store_true',
                        help='refuse weights that hold NaN or infinity (reads them all)')
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results; default: '
                        'work_dirs/<name of the config>')
    parser.add_argument('--cfg-options', '--options', nargs='+', action=KeyValues, default={},
                        metavar='KEY=VALUE', help='override settings of the config, e.g. '
                        'optimizer.lr=1e-4 data.samples_per_gpu=4 model.backbone.out_indices=[23]')
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
    parser.add_argument('--wait-for-disk', type=float, default=PATIENCE, metavar='SECONDS',
                        help='wait so long for room for the last checkpoint (default: %(default)s; '
                        f'with --spare-dir at most {PATIENCE_BEFORE_SPARE}), then fail')
    parser.add_argument('--no-validate', action='store_true', help='no evaluation during training')
    parser.add_argument('--seed', type=int,
                        help='default: that of the resumed run, else a new one')
    parser.add_argument('--diff_seed', '--diff-seed', action='store_true',
                        help='a different seed on every rank')
    parser.add_argument('--deterministic', action=argparse.BooleanOptionalAction, default=False,
                        help='deterministic kernels on a GPU, so that a resumed run is exact; '
                        'dist_train.sh sets it')
