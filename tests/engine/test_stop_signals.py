import multiprocessing
import os
import signal
import time

import pytest

from mmseg_custom.engine import stop_signals
from mmseg_custom.engine.stop_signals import end_workers, shield_worker, stop_after_batch


def work(ready) -> None:
    shield_worker(0)
    ready.set()
    time.sleep(60)


def test_shielded_workers_outlive_signals_but_not_their_process():
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    worker = context.Process(target=work, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(20)
    worker.terminate()
    worker.join(0.3)
    assert worker.is_alive()
    end_workers()
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


def test_a_second_signal_ends_a_loop_at_once(monkeypatch):
    monkeypatch.setattr(stop_signals, 'ONE_KEYSTROKE', -1)
    with pytest.raises(KeyboardInterrupt), stop_after_batch():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
