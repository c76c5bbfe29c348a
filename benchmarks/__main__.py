"""Measures, compares runs, and writes the page of figures.

    python -m benchmarks [NAME ...] [--device cuda|cpu] [--minutes N] [--tiny] [--out DIR] [--list]
    python -m benchmarks compare OLD.json NEW.json      what got slower by more than the noise
    python -m benchmarks page [--check]                 docs/performance.md from benchmarks/results

Each benchmark measures ours, a reference and, where there is one, the limit in one run. Without
NAME all run that are a part of the suite of the device, what is missed most first, until the time
is up. The exit code is 1 if one failed or found something wrong; a target that is missed is shown.
"""
import argparse
import sys
import time
from pathlib import Path

from . import comparison, execution, page
from .registry import DEVICES, Benchmark, find_benchmarks
from .results import Results, read_results

COMMANDS = ('compare', 'page')
MINUTES, SECONDS = 8.0, 4.0


def parser_of_runs() -> argparse.ArgumentParser:
    """Returns the parser of a run of benchmarks."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help='benchmarks to run; see --list')
    parser.add_argument('--device', choices=DEVICES, help='default: cuda where there is a GPU')
    parser.add_argument('--minutes', type=float, default=MINUTES, help='time for all of it')
    parser.add_argument('--seconds', type=float, default=SECONDS, help='length of each timing')
    parser.add_argument('--tiny', action='store_true',
                        help='tiny networks and images: tries the benchmarks, measures nothing')
    parser.add_argument('--out', type=Path, default=execution.ROOT / 'work_dirs/benchmarks',
                        help='folder of the results')
    parser.add_argument('--against', type=Path, metavar='CHECKOUT',
                        help='another checkout of the project, for the benchmarks that compare two')
    parser.add_argument('--list', action='store_true', help='list the benchmarks')
    return parser


def choose(names: list[str], device: str, found: dict[str, Benchmark]) -> list[Benchmark]:
    """Returns the benchmarks of these names, or those of the suite of a device."""
    if names:
        return [found[name] for name in names]
    return [one for one in found.values() if device in one.suite and device in one.devices]


def command_line(args: argparse.Namespace) -> str:
    """Returns the command of a run as others can repeat it: without folders of this machine."""
    words = ['python -m benchmarks', *args.names]
    words += ['--device', args.device] if args.device else []
    words += ['--minutes', f'{args.minutes:g}'] if args.minutes != MINUTES else []
    words += ['--seconds', f'{args.seconds:g}'] if args.seconds != SECONDS else []
    return ' '.join(words + ['--tiny'] * args.tiny + ['--against CHECKOUT'] * bool(args.against))


def run(words: list[str]) -> int:
    """Runs benchmarks; returns the exit code."""
    parser = parser_of_runs()
    args = parser.parse_args(words)
    found = find_benchmarks()
    if unknown := sorted(set(args.names) - set(found)):
        parser.error(f'unknown {", ".join(unknown)}; expected some of {", ".join(found)}, or one '
                     f'of {", ".join(COMMANDS)}')
    if args.list:
        for one in found.values():
            print(f'{one.name:<22}{"/".join(one.devices):<10}{one.minutes:>5g} min  {one.title}')
        return 0
    about = execution.describe_machine(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = execution.Settings(about['device'], args.out.resolve(), args.minutes, args.tiny,
                                  args.seconds, args.against and args.against.resolve())
    path = execution.result_path(settings.out, about['machine'], args.tiny)
    results = Results(
        command_line(args), time.strftime('%Y-%m-%d %H:%M', time.gmtime()),
        execution.commit(), about['device'], args.tiny, about['machine'], about['versions'])
    execution.run_cases(choose(args.names, settings.device, found), settings, results, path)
    print(f'results: {path}')
    return 0 if all(case.state in ('ok', 'skipped') for case in results.cases) else 1


def main() -> None:
    """Runs what the command line asks for."""
    words = sys.argv[1:]
    if words[:1] == ['compare']:
        parser = argparse.ArgumentParser(prog='python -m benchmarks compare')
        parser.add_argument('old', type=Path)
        parser.add_argument('new', type=Path)
        args = parser.parse_args(words[1:])
        text, slower = comparison.compare(read_results(args.old), read_results(args.new))
        print(text)
        sys.exit(1 if slower else 0)
    if words[:1] == ['page']:
        parser = argparse.ArgumentParser(prog='python -m benchmarks page')
        parser.add_argument('--check', action='store_true',
                            help='only say whether it is what the files give')
        sys.exit(page.main(parser.parse_args(words[1:]).check))
    sys.exit(run(words))


if __name__ == '__main__':
    main()
