"""Memory that a run on a simulated CUDA device takes, by kind, against the doctor's prediction."""
from collections import Counter

import torch
from helpers.fake_cuda import local
from mmcv.runner import BaseRunner, Hook

from mmseg_custom.doctor.memory import CUBLAS, MemoryEstimate, predict
from mmseg_custom.doctor.memory_tracker import STATES, MemoryTracker, peaks
from mmseg_custom.doctor.run_shape import run_shape_of
from mmseg_custom.engine.run import Run
from mmseg_custom.units import MIB

PARTS = ('weights', *STATES)  # the others are compared together
BATCH = 2 * 504 * 504 * (3 * 4 + 8)  # bytes; the doctor's step holds it to its end


class DeviceMemory(MemoryTracker):
    """Tracks the storages of the device alone; for :func:`.fake_cuda.on_cuda`."""

    def __init__(self):
        super().__init__(copying_convolutions=True)
        self.on_device: set[int] = set()
        self.enter_site('run')

    def _record(self, tensor: torch.Tensor, kind: str):
        allocation = super()._record(tensor, kind)
        if tensor.device.type == 'cuda':
            self.on_device.add(allocation.number)
        return allocation

    def _record_temporary(self, size: int) -> None:
        super()._record_temporary(size)
        self.on_device.add(len(self.kinds) - 1)

    def peak(self) -> dict[str, int]:
        """Returns the bytes by kind at the moment at which most memory was in use."""
        self.events = [event for event in self.events if event[0] in self.on_device]
        parts, = peaks(self).values()
        return parts


class Kinds(Hook):
    """Says which storages are weights, gradients and moments."""

    def __init__(self, memory: DeviceMemory):
        self.memory = memory

    def before_run(self, runner: BaseRunner) -> None:
        self.memory.tag(runner.model.buffers(), 'weights')
        for parameter in runner.model.parameters():
            self.memory.tag((local(parameter),),
                            'master weights' if parameter.requires_grad else 'weights')

    def after_train_iter(self, runner: BaseRunner) -> None:
        self.memory.tag((local(p.grad) for p in runner.model.parameters() if p.grad is not None),
                        'gradients')
        self.memory.tag((local(value) for values in runner.optimizer.state.values()
                         for name, value in values.items() if name != 'step'), 'optimizer')


def predicted_for(run: Run) -> MemoryEstimate:
    """Returns the doctor's prediction for a run, as its config says."""
    return next(each for each in predict(run.cfg, run_shape_of(run, None)) if each.chosen)


def assert_as_predicted(memory: DeviceMemory, predicted: MemoryEstimate) -> None:
    """Compares the peak with the prediction, kind by kind."""
    found, expected = Counter(memory.peak()), Counter(predicted.parts)
    expected['workspace'] -= CUBLAS
    for part in (*PARTS, 'other'):
        mine, theirs = _size(found, part), _size(expected, part)
        print(f'  {part}: {mine / MIB:.1f} MiB, predicted {theirs / MIB:.1f}')
        if predicted.when == 'start':  # DDP sends all weights, which is left out here
            assert part in STATES or mine <= theirs + MIB / 10
        else:
            assert abs(mine - theirs) <= (BATCH if part == 'other' else MIB / 10), part


def _size(parts: Counter, name: str) -> int:
    return parts[name] if name in PARTS else sum(parts.values()) - sum(parts[n] for n in PARTS)
