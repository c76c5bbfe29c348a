import multiprocessing
import signal
import time

from mmseg_custom.engine.stop_signals import end_workers, shield_worker


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
