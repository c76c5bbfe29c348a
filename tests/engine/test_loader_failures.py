import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from mmseg_custom.engine.cli import explain


class Dying(Dataset):
    def __init__(self, number: int):
        self.number = number

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), self.number) if self.number else os._exit(1)
        return index


@pytest.mark.parametrize(('number', 'message'), [
    (signal.SIGKILL, 'was killed, most often for lack of memory'),
    (signal.SIGSEGV, 'ended by the signal "Segmentation fault"'),
    (signal.SIGBUS, '/dev/shm more room'),
    (0, 'ended without a word'),
])
def test_a_dead_worker_is_said_in_one_line(number, message):
    with pytest.raises(RuntimeError) as raised:
        list(DataLoader(Dying(number), num_workers=1, multiprocessing_context='fork'))
    line = explain(raised.value)
    assert message in line and 'data.workers_per_gpu' in line and '\n' not in line


def test_full_shared_memory_and_files_are_said_in_one_line():
    full = RuntimeError('unable to write to file </torch_7_1_0>: No space left on device (28)')
    assert 'docker run --shm-size' in explain(full)
    assert 'ulimit -n' in explain(RuntimeError('received 0 items of ancdata'))
    assert 'no memory is left (MemoryError: of one array)' in explain(MemoryError('of one array'))
    assert explain(RuntimeError('mat1 and mat2 shapes cannot be multiplied')) is None
