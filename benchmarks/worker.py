"""Runs one case in this process, for execution.py: `python -m benchmarks.worker NAME OPTIONS`.

The result is written after every row, so that a case that is killed keeps what it has measured.
"""
import argparse
import logging
import os
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from .context import Context, Skipped
from .registry import DEVICES, load_case
from .results import CaseResult, write_json


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('name')
    parser.add_argument('--device', choices=DEVICES, required=True)
    parser.add_argument('--tiny', action='store_true')
    parser.add_argument('--seconds', type=float, default=4.0, help='length of each timing')
    parser.add_argument('--limit', type=float, default=600, help='seconds until it is killed')
    parser.add_argument('--against', type=Path, help='another checkout of the project')
    parser.add_argument('--json', type=Path, help='file to write the result to')
    return parser.parse_args()


def main() -> None:
    """Runs the case and writes its result; a failure is a state of the result, too."""
    deadline = time.monotonic()
    args = parse_args()
    deadline += args.limit
    import mmseg_custom  # noqa: F401 - first, before mmseg, which needs its stand-in

    import torch  # isort: skip
    from mmseg.utils import get_root_logger
    get_root_logger(log_level=logging.ERROR)
    torch.manual_seed(0)
    if args.tiny:
        torch.set_num_threads(1)  # a second one costs more than it brings
    case = load_case(args.name)
    result = CaseResult(args.name, case.benchmark.title)  # type: ignore[attr-defined]
    run = Context(result, args.device, args.tiny, args.seconds, deadline, args.against, args.json)
    try:
        case(run)
        result.state = 'wrong' if result.flags else 'ok'
    except Skipped as reason:
        result.state = 'skipped'
        result.flags.append(str(reason))
    except Exception as error:
        traceback.print_exc()
        result.state = 'failed'
        result.flags.append(f'{type(error).__name__}: {(str(error).splitlines() or [""])[0][:200]}')
    if args.json is not None:
        write_json(args.json, asdict(result))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if result.state in ('ok', 'skipped') else 1)  # waits for no thread of a library


if __name__ == '__main__':
    main()
