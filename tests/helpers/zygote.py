"""Runs scripts quickly: a process that has imported everything, and forks.

Importing the libraries takes most of the time of a tiny run. One fresh process does it once (this
file as a script); it forks a child for every rank that a test asks for. A fresh one, because a
process that has computed with several threads cannot be forked safely.
"""
import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.commands import ROOT, free_port
from helpers.pauses import draw_no_curves, end_without_a_pause, leave_configs_unformatted

PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Zygote:
    """Starts scripts of Python in forks of one process, and waits for them."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable,
                 'PYTHONPATH': f'{ROOT}:{ROOT}/tests:{os.environ.get("PYTHONPATH", "")}',
                 # Asking for GPUs must not start CUDA here, which does not survive a fork.
                 'PYTORCH_NVML_BASED_CUDA_CHECK': '1'}, cwd=ROOT)
        self._ask(None)  # imported

    def import_once(self, module: str) -> None:
        """Imports a module that takes long, and that few forks need."""
        self._ask({'import': module})

    def start(self, log: Path, script: Path | str, *arguments: object, ranks: int = 1,
              cwd: Path = ROOT, limit: int = 600, file_size: int | None = None) -> list[int]:
        """Starts a script on some ranks; returns their process numbers.

        Ranks are told apart as by torchrun, or with ``--launcher slurm`` as by a Slurm that shows
        each the same single GPU.

        Args:
            log: File that the ranks' output is appended to.
            script: Path of the script, relative to the repository.
            *arguments: Words of its command line.
            ranks: Number of processes.
            cwd: Working directory.
            limit: Seconds after which a rank that still runs is killed, by signal 14.
            file_size: Largest size of a file that the ranks can write, in bytes.
        """
        job = dict(argv=[str(ROOT / script), *map(str, arguments)], log=str(log), cwd=str(cwd),
                   limit=limit, file_size=file_size)
        group = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
        envs: list[dict] = [{}]
        if 'slurm' in arguments:
            envs = [dict(group, SLURM_PROCID=str(rank), SLURM_NTASKS=str(ranks), SLURM_LOCALID='0',
                         SLURM_NODELIST='localhost') for rank in range(ranks)]
        elif ranks > 1 or '--launcher' in arguments:
            envs = [dict(group, WORLD_SIZE=str(ranks), RANK=str(rank), LOCAL_RANK=str(rank))
                    for rank in range(ranks)]
        return [self._ask({**job, 'env': env}) for env in envs]

    def wait(self, process: int) -> int:
        """Waits for a rank; returns its exit code, -N for one killed by signal N."""
        return self._ask({'wait': process})

    def run(self, script: Path | str, *arguments: object, ranks: int = 1, code: int = 0,
            cwd: Path = ROOT) -> str:
        """Runs a script to its end: checks the exit codes and returns what was printed."""
        with tempfile.NamedTemporaryFile('r', suffix='.txt') as log:
            codes = [self.wait(process) for process in self.start(
                log.name, script, *arguments, ranks=ranks, cwd=cwd)]
            text = log.read()
        assert codes == [code] * ranks, f'exit codes {codes}\n{text[-5000:]}'
        return text

    def start_training(self, log: Path, *arguments: object, ranks: int = 1,
                       **options: int) -> list[int]:
        """Starts ``tools/train.py`` on some ranks; returns their process numbers."""
        return self.start(log, 'tools/train.py', *arguments, *launcher(ranks), ranks=ranks,
                          **options)

    def train(self, *arguments: object, ranks: int = 1, code: int = 0) -> str:
        """Runs ``tools/train.py``: checks the exit codes and returns what was printed."""
        return self.run('tools/train.py', *arguments, *launcher(ranks), ranks=ranks, code=code)

    def close(self) -> None:
        """Ends the process and its children, also where an interrupted test waits for one."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def _ask(self, question: dict | None) -> int:
        self._process.stdin.write(json.dumps(question) + '\n')
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def launcher(ranks: int) -> list[str]:
    """Returns the option of the tools for a number of ranks."""
    return ['--launcher', 'pytorch'] if ranks > 1 else []


def die_with_parent() -> None:
    """Lets the system kill this process when the one that started it ends, however it ends.

    Else ranks of an interrupted test, each in a session of its own, would hold the GPU.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _become(job: dict) -> None:
    """Runs a script in a forked child; does not return."""
    import resource
    import runpy
    import traceback
    log = os.open(job['log'], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run in the background
    die_with_parent()
    signal.alarm(job['limit'])
    if job['file_size'] is not None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job['file_size'], most))
    os.environ.update(job['env'])
    os.chdir(job['cwd'])
    sys.argv = job['argv']
    sys.path.insert(0, os.path.dirname(job['argv'][0]))
    code = 0
    try:
        runpy.run_path(job['argv'][0], run_name='__main__')
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _import_all() -> None:
    """Imports what the tools import at the start and during a run."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401 - draws the curves of a run
    import torch._dynamo  # with the first optimizer
    import torch.distributed.checkpoint
    import torch.distributed.fsdp
    import torch.distributed.tensor
    import torch.utils.tensorboard
    import torchvision  # noqa: F401 - logged with its version

    import mmseg_custom.doctor.checks
    import mmseg_custom.engine.sweep
    import mmseg_custom.engine.test
    import mmseg_custom.engine.train  # noqa: F401
    torch.set_num_threads(1)
    end_without_a_pause()
    leave_configs_unformatted()
    draw_no_curves()
    gc.freeze()  # a collection in a fork would write to, and so copy, all pages of these objects


def _serve() -> None:
    die_with_parent()
    _import_all()
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    for line in sys.stdin:
        question, answer = json.loads(line), 0
        if question and 'wait' in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question['wait'], 0)[1])
        elif question and 'import' in question:
            importlib.import_module(question['import'])
        elif question:
            answer = os.fork()
            if answer == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                _become(question)
        answers.write(f'{answer}\n')
        answers.flush()


if __name__ == '__main__':
    _serve()
