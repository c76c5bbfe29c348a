"""Seconds until a tool answers, and until a run has taken its first iteration.

    python benchmarks/start_up.py [--tools train.py report.py] [--run] [--former CHECKOUT]

Each tool is asked for --help, given a path that does not exist and a mistyped option, in a process
of its own; so are `import mmseg_custom` and the reference, `import torch`. --run adds a training of
one iteration and a test, of the tiny network on drawn images. All take turns, --repeats times.
Printed are medians: seconds, seconds of CPU (which a busy machine does not lengthen), and their
ratios to the reference. --former adds the same of another checkout of the project, in turns.

Where PYTHONDONTWRITEBYTECODE is set, Python compiles the project's own files in each process;
those of installed packages are compiled at the set-up.
"""
import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PATHS = {'cache.py': ['list', 'nowhere'], 'convert_weights.py': ['nowhere', 'x.pth'],
         'demo_grid.py': ['nowhere', 'x', 'x.png'], 'demo_web.py': ['nowhere', 'none'],
         'few_shot.py': ['report', 'nowhere'], 'image_demo.py': ['nowhere', 'x', 'none'],
         'make_demo_data.py': None, 'merge_checkpoint.py': ['nowhere', 'x.pth'],
         'prepare_data.py': ['ade20k', 'nowhere'], 'test.py': ['nowhere', 'none', '--out', 'x.pkl'],
         'torchrun.py': ['--nproc_per_node=2', 'tools/train.py', 'nowhere']}
TINY = 'configs/tiny/linear_probing_tiny.py'
WORK_DIR = 'WORK_DIR'  # stands for a new folder
CODES = {', a wrong path': 1, ', a mistyped option': 2}  # else 0
Command = tuple[Path, list[str], int]  # checkout, arguments of Python, exit code


def commands_of(root: Path, tools: list[str]) -> dict[str, list[str]]:
    """Returns what is asked of the tools: name -> arguments of Python."""
    commands = {'import mmseg_custom': ['-c', 'import mmseg_custom']}
    for name in tools or sorted(path.name for path in (root / 'tools').glob('[!_]*.py')):
        path = PATHS.get(name, ['nowhere'])
        if name != 'torchrun.py':  # Its own options are PyTorch's.
            commands[f'{name} --help'] = [f'tools/{name}', '--help']
        if path is not None:
            commands[f'{name}, a wrong path'] = [f'tools/{name}', *path]
        commands[f'{name}, a mistyped option'] = [f'tools/{name}', *(path or []), '--debgu']
    return commands


def code_of(name: str) -> int:
    """Returns the exit code that a command has to end with."""
    return next((code for end, code in CODES.items() if name.endswith(end)), 0)


def runs_of(folder: Path) -> dict[str, list[str]]:
    """Returns a training of one iteration and a test, on images that are drawn into a folder."""
    subprocess.run([sys.executable, 'tools/make_demo_data.py', '--out', str(folder / 'data'),
                    '--train', '2', '--val', '1'], cwd=ROOT, check=True, capture_output=True)
    settings = ['--cfg-options', 'runner.max_iters=1', 'checkpoint_config.interval=9',
                'data.workers_per_gpu=0', 'data.samples_per_gpu=1', 'total_batch=1',
                *(f'data.{part}.data_root={folder}/data/ADEChallengeData2016'
                  for part in ('train', 'val', 'test'))]
    common = ['--device', 'cpu', '--work-dir', WORK_DIR, *settings]
    return {'train.py, one iteration': ['tools/train.py', TINY, '--no-validate', *common],
            'test.py, one image': ['tools/test.py', TINY, 'none', '--eval', 'mIoU', *common]}


def measure(root: Path, words: list[str], code: int) -> tuple[float, float]:
    """Runs Python in a checkout, for an exit code; returns the seconds, and those of CPU."""
    with tempfile.TemporaryDirectory() as folder:
        words = [folder if word == WORK_DIR else word for word in words]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True,
                              env={**os.environ, 'PYTHONPATH': str(root)})
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        sys.exit(f'{" ".join(words)} ended with {done.returncode}: {done.stderr[-2000:]}')
    return seconds, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    """Measures all in turns and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tools', nargs='+', metavar='NAME', help='such as train.py; default: all')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--run', action='store_true', help='a training and a test as well')
    parser.add_argument('--former', type=Path, metavar='CHECKOUT', help='compare with another one')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_of(ROOT, args.tools or [])
        commands.update(runs_of(Path(folder)) if args.run else {})
        jobs: dict[str, Command] = {'import torch': (ROOT, ['-c', 'import torch'], 0)}
        for name, words in commands.items():
            jobs[name] = ROOT, words, code_of(name)
            if args.former:
                jobs[f'  {name}, former'] = args.former.resolve(), words, code_of(name)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        for _ in range(args.repeats):
            for name, job in jobs.items():
                found[name].append(measure(*job))
    reference = [median(values) for values in zip(*found['import torch'])]
    width = max(map(len, found))
    for name, values in found.items():
        figures = [median(each) for each in zip(*values)]
        print(f'{name:{width}}' + ''.join(
            f'  {seconds:6.2f} s {unit} {seconds / of:5.2f} x'
            for seconds, of, unit in zip(figures, reference, ('   ', 'CPU'))))


if __name__ == '__main__':
    main()
