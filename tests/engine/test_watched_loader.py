"""Workers that deliver nothing end the run, and are named; nothing is left of them."""
import os
import signal
import time

import pytest
from torch.utils.data import Dataset

from mmseg_custom.engine import watched_loader
from mmseg_custom.engine.stop_signals import end_workers
from mmseg_custom.engine.watched_loader import WatchedLoader
from mmseg_custom.errors import InputError
from mmseg_custom.processes import state_of


class Stuck(Dataset):
    """Sample 2 never comes: its worker stops, or sleeps."""

    def __init__(self, stops: bool):
        self.stops = stops

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 2:
            time.sleep(0.2)  # what it loaded before is sent
            os.kill(os.getpid(), signal.SIGSTOP) if self.stops else time.sleep(60)
        return index


@pytest.mark.parametrize(('stops', 'state'), [(True, 'stopped'), (False, 'asleep')])
def test_a_worker_that_delivers_nothing_is_named(monkeypatch, stops, state):
    monkeypatch.setattr(watched_loader, 'POLL', 0.2)
    batches = iter(WatchedLoader(Stuck(stops), num_workers=2, timeout=0.6,
                                 names=lambda keys: f'{keys[0]}.jpg'))
    assert [int(next(batches)) for _ in range(2)] == [0, 1]
    with pytest.raises(InputError) as raised:
        next(batches)
    worker = next(child for child in watched_loader.active_children())
    assert str(raised.value).startswith(
        f'loader worker 0 of 2 (process {worker.pid}, {state}, for 2.jpg) has delivered nothing')
    assert 'data.timeout' in str(raised.value)
    end_workers()
    worker.join(10)
    assert state_of(worker.pid) == 'ended'


def test_all_batches_come(monkeypatch):
    """Slower than one poll, faster than the limit; a second pass too."""
    monkeypatch.setattr(watched_loader, 'POLL', 0.05)
    loader = WatchedLoader(Slow(), num_workers=2, timeout=20, persistent_workers=True)
    assert [[int(batch) for batch in loader] for _ in range(2)] == [[0, 1, 2, 3]] * 2
    assert [int(batch) for batch in WatchedLoader(Slow())] == [0, 1, 2, 3]


class Slow(Stuck):
    def __init__(self):
        super().__init__(False)

    def __getitem__(self, index: int) -> int:
        time.sleep(0.15)
        return index
