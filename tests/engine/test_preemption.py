"""Ctrl-C in a training: what the first and the second one do."""
import logging
import os
import signal
import time
from types import SimpleNamespace

import pytest
from helpers.runs import wait_for
from mmcv.runner import CheckpointHook
from torch import nn

from mmseg_custom.engine.last_save import LastSave
from mmseg_custom.engine.preemption import Preemption, PreemptionHook
from mmseg_custom.engine.stop_signals import SIGNALS

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
    ('before', 'error: interrupted: nothing is done yet', 1)])
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


@pytest.fixture
def _signals_kept():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_between_runs_ends_the_process_before_the_next_one(_signals_kept):
    preemption = Preemption()
    preemption.exit_between_runs()
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        preemption.signal = number
        with pytest.raises(SystemExit) as end:
            preemption.exit_between_runs()
        assert end.value.code == code


@pytest.mark.parametrize(('last', 'with_optimizer', 'saved_again'), [
    ('iter_4.pth', True, False), ('iter_4.pth', False, True), ('iter_2.pth', True, True)])
def test_what_was_just_saved_is_not_saved_again(_signals_kept, tmp_path, last, with_optimizer,
                                                saved_again):
    """It may take longer than a scheduler waits."""
    saves = []
    runner = SimpleNamespace(
        work_dir=str(tmp_path), iter=3, rank=0, model=nn.Identity(), logger=logging.getLogger('x'),
        meta=dict(hook_msgs=dict(last_ckpt=str(tmp_path / last))), save_checkpoint=saves.append,
        hooks=[CheckpointHook(save_optimizer=with_optimizer)])
    hook = PreemptionHook(Preemption(), LastSave())
    with pytest.raises(SystemExit) as raised:
        hook.stop(runner, signal.SIGTERM)
    assert raised.value.code == 75 and len(saves) == saved_again
