"""Checks a run before it starts: python tools/doctor.py CONFIG [--gpus 8 --gpu-memory 80].

With --compare it says which ways of tuning the backbone fit instead.
"""
import argparse
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING

from _arguments import add_cfg_options, add_debug
from _command_line import Parser, existing, fail, start

if TYPE_CHECKING:
    from mmcv import Config

    from mmseg_custom.engine.options import RunOptions


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        description='Check data, weights and environment of a config, and predict memory and time '
        'of its training; the exit code is 1 if a fault was found')
    parser.add_argument('config', help='config file')
    parser.add_argument('--gpus', type=int, help='number of GPUs of the run, on all nodes '
                        'together; on the CPU, of processes (default: that of this machine, or 1)')
    parser.add_argument('--gpu-memory', type=float, metavar='GIB', help='memory of each GPU '
                        '(default: that of this machine)')
    parser.add_argument('--device', choices=('cuda', 'cpu'), help='device of the run (default: '
                        'cuda with --gpu-memory or where there is a GPU)')
    parser.add_argument('--tflops', type=float, help='10^12 operations per second of a GPU in '
                        'bfloat16, to predict the time where there is none to measure')
    parser.add_argument('--no-validate', action='store_true', help='the run has no evaluations; '
                        'from a complete feature cache it then needs no backbone on the GPU')
    parser.add_argument('--compare', action='store_true', help='predict memory and time of the '
                        'ways of tuning the backbone (frozen, LoRA, last blocks, full) with the '
                        'heads, data and batch of the config, and say which fit; the exit code '
                        'is 1 if none does')
    parser.add_argument('--json', action='store_true', help='print everything as JSON')
    add_cfg_options(parser)
    add_debug(parser)
    args = parser.parse_args()
    for name in ('gpus', 'gpu_memory', 'tflops'):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            fail(f'--{name.replace("_", "-")} {getattr(args, name)}: expected more than 0')
    return existing(args, 'config')


def main(args: argparse.Namespace) -> None:
    """Runs the checks and prints their report; exits with 1 if a fault was found."""
    import torch
    from mmseg.utils import get_root_logger

    from mmseg_custom.distributed.devices import gpu_problem
    from mmseg_custom.engine.config import load_config, resolve_config
    from mmseg_custom.engine.options import RunOptions

    warnings.simplefilter('ignore')
    get_root_logger().setLevel(logging.ERROR)
    problem = gpu_problem()
    here = problem is None
    # A GPU that is there and cannot be used is a fault of the environment, and no CPU.
    on_gpus = problem is None or args.gpu_memory or problem.unexpected
    device = args.device or ('cuda' if on_gpus else 'cpu')
    ranks = args.gpus or (torch.cuda.device_count() if device == 'cuda' and here else 1)
    options = RunOptions(device=device, no_validate=args.no_validate,
                         launcher='pytorch' if ranks > 1 else 'none')
    cfg, notes = resolve_config(load_config(args.config, args.cfg_options), options)
    memory = memory_of(args, device)
    healthy = (compare_ways(args, cfg, options, ranks, memory) if args.compare else
               check(args, cfg, options, ranks, memory, notes))
    sys.exit(0 if healthy else 1)


def check(args: argparse.Namespace, cfg: 'Config', options: 'RunOptions', ranks: int,
          memory: int | None, notes: list[str]) -> bool:
    """Prints the report of all checks; returns whether no fault was found.

    Args:
        args: Command line.
        cfg: Resolved config.
        options: Options of the run.
        ranks: Number of processes.
        memory: Bytes of a GPU, or on the CPU those that are free.
        notes: Lines on settings of the config that have no or another effect.
    """
    from mmseg_custom.doctor.checks import run_checks
    from mmseg_custom.doctor.report import as_json, page
    from mmseg_custom.progress import Steps

    progress = Steps('checking')
    report = run_checks(cfg, options, ranks, memory, args.tflops, progress)
    report.notes = notes
    progress('')
    print((as_json if args.json else page)(report, args.config))
    return report.healthy


def compare_ways(args: argparse.Namespace, cfg: 'Config', options: 'RunOptions', ranks: int,
                 memory: int | None) -> bool:
    """Prints which ways of tuning fit; returns whether any does, or no memory is known."""
    from mmseg_custom.doctor.comparison import compare
    from mmseg_custom.doctor.comparison_report import as_json, table
    from mmseg_custom.progress import Steps

    progress = Steps('predicting')
    found = compare(cfg, options, ranks, memory, args.tflops, progress)
    progress('')
    print((as_json if args.json else table)(found, args.config))
    return not found.advice


def memory_of(args: argparse.Namespace, device: str) -> int | None:
    """Returns the bytes of a GPU, or on the CPU those that are free."""
    import torch

    from mmseg_custom.units import GIB

    if args.gpu_memory:
        return int(args.gpu_memory * GIB)
    if device == 'cuda':
        return (torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available()
                else None)
    return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


if __name__ == '__main__':
    start(parse_args, main)
