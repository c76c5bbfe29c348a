"""Workers that deliver nothing end the run, and are named; nothing is left of them."""
import os
import re
import signal
import threading
import time
from multiprocessing import active_children

import pytest
import torch
from torch.utils.data import Dataset

from mmseg_custom.engine import watched_loader
from mmseg_custom.engine.stop_signals import end_workers
from mmseg_custom.engine.watched_loader import WatchedLoader
from mmseg_custom.errors import InputError


class Stuck(Dataset):
    """Sample 2 never comes: its worker stops."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 2:
            time.sleep(0.2)  # what it loaded before is sent
            os.kill(os.getpid(), signal.SIGSTOP)
        return index


def test_a_worker_that_delivers_nothing_is_named():
    batches = iter(WatchedLoader(Stuck(), num_workers=2, timeout=1.8,
                                 names=lambda keys: f'{keys[0]}.jpg'))
    assert [int(next(batches)) for _ in range(2)] == [0, 1]
    with pytest.raises(InputError) as raised:
        next(batches)
    assert re.match(r'loader worker 0 of 2 \(process \d+, stopped, for 2.jpg\) has delivered '
                    r'nothing for [\d.]+ s: .*data.timeout', str(raised.value))
    end_workers()
    assert not active_children()


class StopsLater(Dataset):
    """Each worker stops after it has sent its first sample, a tensor in shared memory."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGSTOP)).start()
        return torch.zeros(2**16)


def test_a_worker_that_stops_after_it_has_announced_a_batch():
    """The batch is fetched from it; torch waits for that without a limit, whatever its timeout."""
    batches = iter(WatchedLoader(StopsLater(), num_workers=1, timeout=0.6))
    time.sleep(0.6)
    with pytest.raises(InputError, match='0 of 1 .*stopped'):
        next(batches)
    end_workers()


def test_all_batches_come(monkeypatch):
    """Slower than one poll, faster than the limit; a second pass too."""
    monkeypatch.setattr(watched_loader, 'POLL', 0.05)
    loader = WatchedLoader(Slow(), num_workers=2, timeout=20, persistent_workers=True)
    assert [[int(batch) for batch in loader] for _ in range(2)] == [[0, 1, 2, 3]] * 2
    assert [int(batch) for batch in WatchedLoader(Slow())] == [0, 1, 2, 3]


class Slow(Stuck):
    def __getitem__(self, index: int) -> int:
        time.sleep(0.1)
        return index
