import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmseg_custom.engine import background
from mmseg_custom.engine.background import Background


@pytest.fixture(autouse=True)
def thread(monkeypatch):
    """A thread without a GPU."""
    monkeypatch.setattr(background, '_thread_for', lambda device: ThreadPoolExecutor(1))


def fail(message):
    raise ValueError(message)


def test_functions_run_in_order_beside_the_calling_thread():
    seen = []

    def work(number):
        time.sleep(0.01 * (5 - number))
        seen.append((number, threading.current_thread() is threading.main_thread()))

    with Background('cuda') as beside:
        for number in range(5):
            beside.put(lambda number=number: work(number))
    assert seen == [(number, False) for number in range(5)]


def test_no_more_than_the_limit_waits():
    free, begun = threading.Semaphore(0), []

    def work(number):
        begun.append(number)
        free.acquire(timeout=20)

    with Background('cuda', limit=2) as beside:
        for number in range(2):
            beside.put(lambda number=number: work(number))
        putting = threading.Thread(target=beside.put, args=(lambda: begun.append(2),))
        putting.start()
        putting.join(0.1)
        assert putting.is_alive() and begun == [0]  # the third waits for the first
        free.release(2)
        putting.join(20)
    assert begun == [0, 1, 2]


def test_the_first_error_ends_it():
    seen, wait = [], threading.Event()
    with pytest.raises(ValueError, match='first'), Background('cuda', limit=9) as beside:
        beside.put(lambda: seen.append(0))
        beside.put(lambda: wait.wait(20) and fail('first'))
        beside.put(lambda: fail('second'))
        beside.put(lambda: seen.append(3))
        wait.set()
    assert seen == [0]


def test_an_error_is_raised_while_work_is_put():
    with pytest.raises(ValueError, match='first'), Background('cuda') as beside:
        beside.put(lambda: fail('first'))
        for _ in range(3):
            beside.put(time.sleep)
        pytest.fail('nothing was raised')


@pytest.mark.parametrize('earlier', [True, False])
def test_an_error_of_the_block_comes_after_those_of_work_before(earlier):
    seen = []
    with pytest.raises(ValueError, match='before' if earlier else 'of the block'), (
            Background('cuda')) as beside:
        beside.put(lambda: time.sleep(0.1) or seen.append(0))
        if earlier:
            beside.put(lambda: fail('before'))
        fail('of the block')
    assert seen == [0]


def test_an_interrupt_waits_for_nothing():
    free, seen = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), Background('cuda') as beside:
        beside.put(lambda: free.wait(20))
        beside.put(lambda: seen.append(1))
        raise KeyboardInterrupt
    assert not free.is_set()
    free.set()
    assert not seen


def test_on_the_cpu_functions_are_called_at_once(monkeypatch):
    monkeypatch.undo()
    with Background('cpu') as beside:
        threads = []
        beside.put(lambda: threads.append(threading.current_thread()))
        assert threads == [threading.main_thread()]
        with pytest.raises(ValueError, match='at once'):
            beside.put(lambda: fail('at once'))
