"""Runs the project's commands as a user does, in processes of their own."""
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command: object, cwd: Path = ROOT, code: int = 0, timeout: int = 300,
        **env: str) -> str:
    """Runs a command, checks its exit code and returns all that it printed.

    ``python`` and ``sh dist_train.sh`` are those of this environment and this repository.
    """
    words = [str(word) for word in command]
    if words[0] == 'python':
        words[0] = sys.executable
    done = subprocess.run(
        words, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=timeout, env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable,
                              'PYTHONPATH': str(ROOT), **env})
    assert done.returncode == code, f'exit code {done.returncode}\n{done.stdout[-5000:]}'
    return done.stdout


def free_port() -> str:
    """Returns a port of the loopback that nothing listens on, as launchers take it."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[str]:
    """Returns several ports of the loopback, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(('127.0.0.1', 0))
        return [str(probe.getsockname()[1]) for probe in probes]
