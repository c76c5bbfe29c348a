"""Memory of whole training runs on a simulated CUDA device, against the doctor's prediction."""
from collections import Counter
from contextlib import nullcontext

import pytest
from helpers.fake_cuda import on_cuda, simulate_ranks
from helpers.fake_runs import RECIPES, prepared, recipe, train
from mmcv.runner import Hook

from mmseg_custom.doctor.memory import CUBLAS, predict
from mmseg_custom.doctor.memory_tracker import STATES, MemoryTracker, peaks
from mmseg_custom.doctor.run_shape import run_shape_of
from mmseg_custom.units import MIB

PARTS = ('weights', *STATES)  # the others are compared together
BATCH = 2 * 504 * 504 * (3 * 4 + 8)  # bytes; the doctor's step holds it to its end


class CudaTracker(MemoryTracker):
    """Tracks the storages of the device alone."""

    def __init__(self):
        super().__init__()
        self.on_device = set()

    def _record(self, tensor, kind):
        allocation = super()._record(tensor, kind)
        if tensor.device.type == 'cuda':
            self.on_device.add(allocation.number)
        return allocation

    def peak(self):
        self.events = [event for event in self.events if event[0] in self.on_device]
        parts, = peaks(self).values()
        return parts


class Tags(Hook):
    """Says what is what."""

    def __init__(self, tracker):
        self.tracker = tracker

    def before_run(self, runner):
        model = runner.model
        self.tracker.tag(model.buffers(), 'weights')
        for parameter in model.parameters():
            self.tracker.tag((local(parameter),),
                             'master weights' if parameter.requires_grad else 'weights')

    def after_train_iter(self, runner):
        self.tracker.tag((local(p.grad) for p in runner.model.parameters() if p.grad is not None),
                         'gradients')
        self.tracker.tag((local(value) for values in runner.optimizer.state.values()
                          for name, value in values.items() if name != 'step'), 'optimizer')


def local(tensor):
    return getattr(tensor, '_local_tensor', tensor)


@pytest.mark.parametrize('ranks', [1, 8])
@pytest.mark.parametrize('name', RECIPES)
def test_is_what_the_doctor_predicts(cuda, tmp_path, name, ranks):
    run = prepared(recipe(name), tmp_path / 'run', ranks)
    predicted = next(each for each in predict(run.cfg, run_shape_of(run, None)) if each.chosen)
    tracker = CudaTracker()
    with on_cuda(tracker) as seen, (simulate_ranks(cuda, seen, ranks) if ranks > 1
                                    else nullcontext()):
        tracker.sites.append((0, ('run', 0)))
        train(run, seen, [Tags(tracker)])
    found, expected = Counter(tracker.peak()), Counter(predicted.parts)
    expected['workspace'] -= CUBLAS
    for part in (*PARTS, 'other'):
        mine, theirs = size(found, part), size(expected, part)
        print(f'{name}, {ranks} process(es), {part}: {mine / MIB:.1f} MiB, predicted '
              f'{theirs / MIB:.1f}')
        if predicted.when == 'start':  # DDP sends all weights, which is left out here
            assert part in PARTS[1:] or mine <= theirs + MIB / 10
        else:
            assert abs(mine - theirs) <= (BATCH if part == 'other' else MIB / 10), part


def size(parts, name):
    return parts[name] if name in PARTS else sum(parts.values()) - sum(parts[n] for n in PARTS)
