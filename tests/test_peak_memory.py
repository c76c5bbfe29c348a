"""The peak of a part, and that of the process, which the former must not lose."""
import logging

import pytest
import torch
from mmcv.runner import HOOKS

from mmseg_custom import peak_memory
from mmseg_custom.engine.text_log import SegTextLoggerHook
from mmseg_custom.evaluation.run_info import peak_memory as reported_peak
from mmseg_custom.models.segmentors.batching import SHARE_OF_FREE, WindowBatch
from mmseg_custom.peak_memory import begin_measurement, measured_peak, process_peak
from mmseg_custom.units import GIB, MIB

GPU, CPU, SHAPE = torch.device('cuda', 0), torch.device('cpu'), (504, 504)


class Allocator:
    """Stands for PyTorch's allocator of a GPU with 80 GiB."""

    def __init__(self, monkeypatch):
        self.now = self.peak = 0
        for name, function in dict(
                memory_allocated=lambda device=None: self.now,
                max_memory_allocated=lambda device=None: self.peak,
                memory_reserved=lambda device=None: self.now,
                reset_peak_memory_stats=lambda device=None: self.use(0),
                mem_get_info=lambda device=None: (80 * GIB - self.now, 80 * GIB),
                current_device=lambda: 0).items():
            monkeypatch.setattr(torch.cuda, name, function)

    def use(self, count: int) -> None:
        """Allocates bytes and frees them again; 0 resets the peak."""
        self.peak = max(self.peak if count else 0, self.now + count)


@pytest.fixture
def gpu(monkeypatch) -> Allocator:
    monkeypatch.setattr(peak_memory, '_earlier', peak_memory.Counter())
    return Allocator(monkeypatch)


def test_a_window_is_measured_apart_from_the_training_before(gpu):
    gpu.now = 20 * GIB
    gpu.use(40 * GIB)  # a training step
    batch = WindowBatch()
    with batch.measured(SHAPE, GPU):
        gpu.use(50 * GIB)  # with cudnn.benchmark, the kernels that are tried
    assert batch.size(SHAPE) == 1
    with batch.measured(SHAPE, GPU):
        gpu.use(2 * GIB)
    assert batch.size(SHAPE) == int(SHARE_OF_FREE * 60 / 2)
    assert process_peak(GPU) == process_peak('cuda') == 70 * GIB


def test_the_peak_of_the_process_is_reported(gpu):
    gpu.use(5 * GIB)
    begin_measurement(GPU)
    gpu.use(GIB)
    assert measured_peak(GPU) == GIB
    assert reported_peak('cuda')['gpu'] == 5 * GIB
    begin_measurement(GPU)
    gpu.use(7 * GIB)
    assert measured_peak(GPU) == reported_peak('cuda')['gpu'] == 7 * GIB


def test_a_run_that_follows_another_has_a_peak_of_its_own(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    gpu.use(5 * GIB)
    begin_measurement(GPU)
    gpu.use(GIB)
    peak_memory.start_anew()
    assert process_peak(GPU) == 0
    gpu.use(2 * GIB)
    assert process_peak(GPU) == 2 * GIB


def test_the_log_reports_it_too(gpu, monkeypatch):
    gpu.use(5 * GIB)
    begin_measurement(GPU)
    gpu.use(GIB)
    assert HOOKS.get('TextLoggerHook') is SegTextLoggerHook
    full = torch.full
    monkeypatch.setattr(torch, 'full', lambda size, value, device: full(size, value))
    model = type('Model', (), dict(output_device=0))
    runner = type('Runner', (), dict(world_size=1, model=model, logger=logging.getLogger('test')))
    assert SegTextLoggerHook()._get_max_memory(runner) == 5 * GIB // MIB


def test_peaks_on_the_cpu():
    before = begin_measurement(CPU)
    block = torch.ones(64 * MIB, dtype=torch.uint8)
    first = measured_peak(CPU)
    assert first - before > 60 * MIB
    del block
    before = begin_measurement(CPU)
    after = measured_peak(CPU)
    assert process_peak('cpu') >= 0.99 * max(first, after)  # the system counts in batches of pages
    if peak_memory._REFS.exists():
        assert after - before < 30 * MIB


def test_a_system_that_keeps_its_peak(monkeypatch, tmp_path):
    """Then a window seems to take more than it does, never less."""
    monkeypatch.setattr(peak_memory, '_REFS', tmp_path)  # a folder: writing raises
    block = torch.ones(64 * MIB, dtype=torch.uint8)
    earlier = measured_peak(CPU)  # since an earlier test, perhaps, and no peak of the process
    del block
    begin_measurement(CPU)
    assert measured_peak(CPU) == pytest.approx(earlier, rel=0.01)
