"""Seconds until a tool answers, and until a run has taken its first iteration.

Each tool is asked for --help, given a path that does not exist and a mistyped option, in a process
of its own; so are `import mmseg_custom` and the reference, `import torch`. So are a training of one
iteration and a test, of the tiny network on drawn images. All take turns. A sample is CPU time,
which a busy machine does not lengthen. `--against` adds another checkout of the project.

Where PYTHONDONTWRITEBYTECODE is set, Python compiles the project's own files in each process;
those of installed packages are compiled at the set-up.
"""
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.context import Context
from benchmarks.execution import ROOT
from benchmarks.registry import benchmark

REPEATS = 5
TORCH, OTHER = 'import torch', 'the other checkout'
PATHS = {'cache.py': ['list', 'nowhere'], 'convert_weights.py': ['nowhere', 'x.pth'],
         'demo_grid.py': ['nowhere', 'x', 'x.png'], 'demo_web.py': ['nowhere', 'none'],
         'export.py': ['nowhere', 'none', 'x'], 'few_shot.py': ['report', 'nowhere'],
         'image_demo.py': ['nowhere', 'x', 'none'], 'make_demo_data.py': None,
         'merge_checkpoint.py': ['nowhere', 'x.pth'],
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
        raise RuntimeError(f'{" ".join(words)} ended with {done.returncode}: '
                           f'{done.stderr[-2000:]}')
    return seconds, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


@benchmark('Seconds until a tool answers, and until a run has taken its first iteration',
           minutes=10, devices=('cpu',), suite=())
def case(run: Context) -> None:
    """Measures all in turns."""
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_of(ROOT, ['train.py'] if run.tiny else [])
        commands.update({} if run.tiny else runs_of(Path(folder)))
        jobs: dict[str, Command] = {TORCH: (ROOT, ['-c', 'import torch'], 0)}
        for name, words in commands.items():
            jobs[name] = ROOT, words, code_of(name)
            if run.against:
                jobs[f'{name}, {OTHER}'] = run.against, words, code_of(name)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        for _ in range(1 if run.tiny else REPEATS):
            for name, job in jobs.items():
                found[name].append(measure(*job))
    for name in commands:
        others = [other for other in (TORCH, f'{name}, {OTHER}') if other in found]
        run.row(name, 's', [cpu for _, cpu in found[name]],
                {other: [cpu for _, cpu in found[other]] for other in others}, notes='CPU time')
