"""Ctrl-C in a training: what the first and the second one do."""
import os
import signal
import time

import pytest
from helpers.runs import wait_for

# Waits in a library that does not come back for signals: a mutex that is locked twice.
STUCK = """
import ctypes, sys
from mmseg_custom.engine import cli
from mmseg_custom.engine.preemption import Preemption

def main():
    preemption = Preemption()
    preemption.listen()
    preemption.trained = sys.argv[1] == 'trained'
    print('ready', flush=True)
    if sys.argv[1] == 'trained':
        mutex, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
        library.pthread_mutex_lock(mutex)
        library.pthread_mutex_lock(mutex)
    while True:
        pass

cli.run(main)
"""


@pytest.mark.parametrize(('when', 'message', 'signals'), [
    ('trained', 'interrupted again: ended at once', 2),
    ('before', 'error: interrupted: no iteration is done yet', 1)])
def test_the_last_interrupt_ends_it_at_once(zygote, tmp_path, when, message, signals):
    script, log = tmp_path / 'stuck.py', tmp_path / 'log.txt'
    script.write_text(STUCK)
    process, = zygote.start(log, script, when, limit=60)
    wait_for(log, 'ready')
    for number in range(signals):
        time.sleep(1.2 * number)  # the first second belongs to the same keystroke
        os.kill(process, signal.SIGINT)
    assert zygote.wait(process) == 130, log.read_text()
    assert message in log.read_text() and 'Traceback' not in log.read_text()
