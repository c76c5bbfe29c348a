"""Signals to the launcher; as a script, this file is the launcher on an older PyTorch."""
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed.run as torchrun
from helpers.commands import ROOT, free_port
from helpers.runs import wait_for

LAUNCHER = ROOT / 'tools/torchrun.py'
WORKER = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.Signals[sys.argv[2]], lambda *_: sys.exit(75))
Path(sys.argv[1]).touch()
time.sleep(60)
"""


def parser_before_2_10(parser):
    """Takes the option out of a parser, as PyTorch before 2.10 has it."""
    action = parser._option_string_actions['--signals-to-handle']
    parser._remove_action(action)
    for group in parser._action_groups:
        if action in group._group_actions:
            group._group_actions.remove(action)
    for name in action.option_strings:
        del parser._option_string_actions[name]
    parser.set_defaults(signals_to_handle='SIGTERM,SIGINT,SIGHUP,SIGQUIT')  # what it handled
    return parser


@pytest.mark.parametrize('launcher, name', [
    (LAUNCHER, 'SIGTERM'), (__file__, 'SIGTERM'), (__file__, 'SIGUSR1'), (LAUNCHER, 'SIGINT'),
    (LAUNCHER, 'SIGHUP')])
def test_signals_reach_the_processes(zygote, tmp_path, launcher, name):
    script, ready, log = (tmp_path / name for name in ('worker.py', 'ready', 'log.txt'))
    script.write_text(WORKER)
    process, = zygote.start(log, launcher, *options('1'), script, ready, name)
    wait_for(ready, seconds=60)
    os.kill(process, signal.Signals[name])
    assert zygote.wait(process) == 75
    assert 'can be resumed with --auto-resume' in log.read_text()


def test_a_launcher_in_a_thread_that_waits_for_another_node_can_be_ended(tmp_path):
    port = free_port()
    process = start(__file__, *options('2', port), tmp_path / 'worker.py')
    while process.poll() is None and not listens(port):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM


def test_ctrl_c_before_there_are_processes(tmp_path):
    process = start(LAUNCHER, *options('1'), tmp_path / 'worker.py')
    while 'libtorch' not in Path(f'/proc/{process.pid}/maps').read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ('error: interrupted\n', None)
    assert process.returncode == 130


@pytest.mark.parametrize('script, n, env, message', [
    ('dist_train.sh', '--work-dir', {}, "the number of processes N is '--work-dir': expected a"),
    ('dist_train.sh', '0', {}, "the number of processes N is '0'"),
    ('dist_test.sh', '2', {'PORT': 'x'}, "PORT is 'x'"),
])
def test_wrong_numbers(script, n, env, message):
    done = subprocess.run(['sh', ROOT / script, 'a', *['b'] * (script == 'dist_test.sh'), n, 'x'],
                          env={**os.environ, 'PYTHON': sys.executable, **env},
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f'error: {message}')


def start(launcher: object, *arguments: object) -> subprocess.Popen:
    """Starts a launcher in a fresh process."""
    return subprocess.Popen(
        [sys.executable, str(launcher), *map(str, arguments)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        # Tests may run in the background, where shells let it be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'})


def options(nodes: str, port: str | None = None) -> list[str]:
    """Returns torchrun's options for one process on the first node of a job."""
    return [f'--nnodes={nodes}', '--node_rank=0', '--nproc_per_node=1', '--master_addr=127.0.0.1',
            f'--master_port={port or free_port()}']


def listens(port: str) -> bool:
    """Returns whether something listens on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', int(port))) == 0


if __name__ == '__main__':
    get_args_parser = torchrun.get_args_parser
    torchrun.get_args_parser = lambda: parser_before_2_10(get_args_parser())
    sys.path.insert(0, str(LAUNCHER.parent))
    runpy.run_path(str(LAUNCHER), run_name='__main__')
