"""Children end with the process that started them, whatever state they are in."""
import os
import signal
import time

import pytest

from mmseg_custom.processes import state_of

# Starts a child, which writes its number, and dies; the child is stopped by then, or stuck.
PARENT = """
import os, signal, sys, time
from mmseg_custom.processes import end_with_parent
started = os.getpid()
child = os.fork()
if child == 0:
    end_with_parent(started)
    with open(sys.argv[1] + '.part', 'w') as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[1] + '.part', sys.argv[1])
    os.kill(os.getpid(), signal.SIGSTOP) if sys.argv[2] == 'stopped' else time.sleep(60)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
time.sleep(0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize('state', ['stopped', 'asleep'])
def test_a_child_ends_with_its_parent(zygote, tmp_path, state):
    (tmp_path / 'parent.py').write_text(PARENT)
    process, = zygote.start(tmp_path / 'log.txt', tmp_path / 'parent.py', tmp_path / 'child', state)
    assert zygote.wait(process) == -signal.SIGKILL, (tmp_path / 'log.txt').read_text()
    child, end = int((tmp_path / 'child').read_text()), time.monotonic() + 10
    while state_of(child) != 'ended':
        assert time.monotonic() < end, state_of(child)
        time.sleep(0.01)


def test_a_process_between_a_rank_and_its_launcher(zygote, tmp_path):
    """As a profiler is; neither that the launcher runs nor that it has ended ends the rank."""
    (tmp_path / 'rank.py').write_text(
        'import os\nfrom mmseg_custom.processes import LAUNCHER, end_with_launcher\n'
        'for number in (1, 2**22 + 1):\n    os.environ[LAUNCHER] = str(number)\n'
        '    end_with_launcher()\n')
    process, = zygote.start(tmp_path / 'log.txt', tmp_path / 'rank.py')
    assert zygote.wait(process) == 0, (tmp_path / 'log.txt').read_text()


def test_what_a_process_is_doing():
    assert state_of(os.getpid()) == 'computing'
    assert state_of(2**22 + 1) == 'ended'  # beyond the largest number
