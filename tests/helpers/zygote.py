"""Starts runs of tools/train.py quickly: a process that has imported everything, and forks.

Importing the package takes most of the time of a tiny run. One fresh process does it once (this
file as a script); it forks a child for every rank that a test asks for. A fresh one, because a
process that has computed with several threads cannot be forked safely.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

from helpers.commands import ROOT, free_port


class Zygote:
    """Starts ranks of training runs, and waits for them."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'},
            cwd=ROOT)
        self._ask(None)  # imported

    def start(self, log: Path, *arguments: object, ranks: int = 1) -> list[int]:
        """Starts ``tools/train.py`` on some ranks; returns their process numbers."""
        words = [str(word) for word in arguments]
        port = free_port()
        job = dict(argv=['tools/train.py', *words], log=str(log), env={})
        if ranks > 1:
            job['argv'] += ['--launcher', 'pytorch']
        return [self._ask({**job, 'env': dict(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR='127.0.0.1',
            MASTER_PORT=port) if ranks > 1 else {}}) for rank in range(ranks)]

    def wait(self, process: int) -> int:
        """Waits for a rank; returns its exit code, -N for one killed by signal N."""
        return self._ask({'wait': process})

    def train(self, log: Path, *arguments: object, ranks: int = 1, code: int = 0) -> str:
        """A whole run: checks the exit codes and returns what was printed."""
        processes = self.start(log, *arguments, ranks=ranks)
        codes = [self.wait(process) for process in processes]
        text = log.read_text()
        assert codes == [code] * ranks, f'exit codes {codes}\n{text[-5000:]}'
        return text

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, question: dict | None) -> int:
        self._process.stdin.write(json.dumps(question) + '\n')
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _become(job: dict) -> None:
    """Runs a tool in a forked child; does not return."""
    import runpy
    import traceback
    log = os.open(job['log'], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    os.setsid()
    os.environ.update(job['env'])
    sys.argv = job['argv']
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


def _serve() -> None:
    sys.path.insert(0, str(ROOT / 'tools'))
    import torch

    import mmseg_custom  # noqa: F401
    import mmseg_custom.engine.train  # noqa: F401
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    for line in sys.stdin:
        question, answer = json.loads(line), 0
        if question and 'wait' in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question['wait'], 0)[1])
        elif question:
            answer = os.fork()
            if answer == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                _become(question)
        answers.write(f'{answer}\n')
        answers.flush()


if __name__ == '__main__':
    _serve()
