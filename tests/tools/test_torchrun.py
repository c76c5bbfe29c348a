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
def test_signals_reach_the_processes(tmp_path, launcher, name):
    script, ready = tmp_path / 'worker.py', tmp_path / 'ready'
    script.write_text(WORKER)
    process = start(launcher, '1', script, ready, name)
    while not ready.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.Signals[name])
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and 'can be resumed with --auto-resume' in out


def test_a_launcher_in_a_thread_that_waits_for_another_node_can_be_ended(tmp_path):
    port = free_port()
    process = start(__file__, '2', tmp_path / 'worker.py', port=port)
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', int(port))) == 0:
                break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM


def test_ctrl_c_before_there_are_processes(tmp_path):
    process = start(LAUNCHER, '1', tmp_path / 'worker.py')
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


def start(launcher: object, nodes: str, *arguments: object,
          port: str | None = None) -> subprocess.Popen:
    """Starts one process on the first node of a job."""
    return subprocess.Popen(
        [sys.executable, str(launcher), f'--nnodes={nodes}', '--node_rank=0', '--nproc_per_node=1',
         '--master_addr=127.0.0.1', f'--master_port={port or free_port()}', *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # Tests may run in the background, where shells let it be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'})


if __name__ == '__main__':
    get_args_parser = torchrun.get_args_parser
    torchrun.get_args_parser = lambda: parser_before_2_10(get_args_parser())
    sys.path.insert(0, str(LAUNCHER.parent))
    runpy.run_path(str(LAUNCHER), run_name='__main__')
