"""Runs the commands of a checkout on tiny networks and a few images, for compare_checkouts.py.

As a script it is the process that imports the package of the current folder once, and is forked
for every command: an import takes longer than most of these commands.
"""
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import torch

MIDDLE, END = 3, 6  # iterations
TRAIN_OPTIONS = ('--seed', 5, '--total-batch', 4)
LIMIT = 300  # seconds of a command
TINY = """
_base_ = '{root}/configs/tiny/{recipe}_tiny.py'
data_root = '{data}/ADEChallengeData2016'
data = dict(samples_per_gpu=2, train=dict(data_root=data_root), val=dict(data_root=data_root),
            test=dict(data_root=data_root))
model = dict(backbone=dict(embed_dim=32, depth=4, num_heads=2, out_indices={blocks},
                           pretrained={weights!r}, drop_path_rate={drop_path}))
optimizer = dict(paramwise_cfg=dict(num_layers=4))
runner = dict(max_iters={end})
lr_config = dict(warmup_iters=1)
checkpoint_config = dict(interval={middle})
evaluation = dict(interval={middle})
log_config = dict(interval=1)
"""
LINEAR_HEAD = 'model.update(decode_head=dict(in_channels=32, channels=32))\n'
UPERNET = ('model.update(decode_head=dict(in_channels=[32] * 4, channels=8),\n'
           '             auxiliary_head=dict(in_channels=32, channels=8))\n')


class CommandError(Exception):
    """A command that failed.

    Args:
        command: Command line.
        text: Output, of which the end is kept.
    """

    def __init__(self, command: str, text: str):
        super().__init__('\n'.join([command, *(
            f'    {line[:300]}' for line in text.splitlines()[-8:])]))


class Checkout:
    """A checkout, and the process that is forked for each of its commands.

    Args:
        root: Folder of the checkout.
        folder: Folder of its results, made here.
        data: Folder of the images.
    """

    def __init__(self, root: Path, folder: Path, data: Path):
        self.root, self.folder, self.data = root, folder, data
        folder.mkdir(parents=True)
        self._messages = folder / 'import.txt'
        env = dict(PYTHONPATH=str(root), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
                   XDG_CACHE_HOME=str(folder / 'hashes'))
        with self._messages.open('w') as messages:
            self._server = subprocess.Popen(
                [sys.executable, __file__], cwd=root, env={**os.environ, **env}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages)

    def run(self, log: str, *words: object, ranks: int = 1, codes: tuple[int, ...] = (0,)) -> str:
        """Runs a script of the checkout; returns what it printed.

        Args:
            log: Name of the file for what is printed, without its ending.
            words: The script and its arguments.
            ranks: Number of processes.
            codes: Exit codes that are no failure.

        Raises:
            CommandError: For any other exit code.
        """
        path = self.folder / f'{log}.txt'
        envs: list[dict] = [{}]
        if ranks > 1:
            words = (*words, '--launcher', 'pytorch')
            with socket.socket() as probe:
                probe.bind(('127.0.0.1', 0))
                port = str(probe.getsockname()[1])
            envs = [dict(RANK=str(i), LOCAL_RANK=str(i), WORLD_SIZE=str(ranks), MASTER_PORT=port,
                         MASTER_ADDR='127.0.0.1') for i in range(ranks)]
        argv = [str(word) for word in words]
        found = self._ask(dict(argv=argv, log=str(path), envs=envs))
        text = (path if path.exists() else self._messages).read_text()
        if not found or not set(found).issubset(codes):
            raise CommandError(f'{" ".join(argv)}: exit codes {found}', text)
        return text

    def _ask(self, job: dict) -> list[int]:
        if self._server.poll() is not None:
            return []
        assert self._server.stdin and self._server.stdout
        print(json.dumps(job), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline() or '[]')

    def run_code(self, name: str, code: str) -> Any:
        """Runs a script that writes JSON to its argument; returns the content."""
        script, out = self.folder / f'{name}_script.py', self.folder / f'{name}.json'
        script.write_text(code)
        self.run(name, script, out)
        return json.loads(out.read_text())

    def config(self, recipe: str, weights: Path | None = None) -> Path:
        """Writes a config of ``END`` iterations on a recipe of the checkout; returns its path."""
        linear = recipe == 'linear_probing'
        path = self.folder / f'{recipe}.py'
        text = TINY.format(
            root=self.root, data=self.data, recipe=recipe, weights=weights and str(weights),
            blocks=[2] if linear else [0, 1, 2, 3], middle=MIDDLE, end=END,
            drop_path=0.3 if recipe == 'full_tuning' else 0.0)
        path.write_text(text + (LINEAR_HEAD if linear else UPERNET))
        return path

    def train(self, recipe: str, weights: Path | None = None, ranks: int = 1) -> Path:
        """Trains, unless this run was made before; returns its work dir."""
        work_dir = self.folder / f'{recipe}_{ranks}'
        if not work_dir.exists():
            self.run(work_dir.name, 'tools/train.py', self.config(recipe, weights), '--work-dir',
                     work_dir, *TRAIN_OPTIONS, ranks=ranks)
        return work_dir

    def backbone(self) -> Path:
        """Writes the backbone of the fully tuned network to a file; returns its path."""
        path = self.folder / 'backbone.pth'
        if not path.exists():
            state = torch.load(self.train('full_tuning') / f'iter_{END}.pth')['state_dict']
            torch.save({name.removeprefix('backbone.'): tensor for name, tensor in state.items()
                        if name.startswith('backbone.') and '.up' not in name}, path)
        return path

    def close(self) -> None:
        """Ends the process."""
        self._server.communicate()


def serve() -> None:
    """Imports the package of the current folder, then runs the commands on standard input."""
    sys.path[0] = 'tools'  # where a tool that is run as a script finds its neighbours
    import mmseg_custom  # noqa: F401
    if not Path(mmseg_custom.__file__).is_relative_to(Path.cwd()):
        sys.exit(f'{mmseg_custom.__file__} is not of {Path.cwd()}')
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        processes = []
        for env in job['envs']:
            processes.append(os.fork())
            if processes[-1] == 0:
                run_forked(job, env)
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        print(json.dumps(codes), file=answers, flush=True)


def run_forked(job: dict, env: dict[str, str]) -> NoReturn:
    """Runs a script in a forked process; does not return."""
    signal.alarm(LIMIT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(job['log'], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    os.environ.update(env)
    sys.argv = job['argv']
    code: Any = 0
    try:
        runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == '__main__':
    serve()
