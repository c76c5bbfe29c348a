"""A run that diverges stops, on all ranks, with its last whole checkpoint; nothing else is kept."""
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from helpers.data import SMALL_LINEAR, write_config
from torch import nn

from mmseg_custom.engine import divergence
from mmseg_custom.engine.divergence import Diverged, DivergenceHook
from mmseg_custom.engine.log_buffer import DeferredLogBuffer

EVERY = SMALL_LINEAR + """
checkpoint_config = dict(interval=1)
evaluation = dict(interval=1)
data['train']['max_image_num'] = 4
"""
CLIPPED = EVERY + 'optimizer_config = dict(grad_clip=dict(max_norm=1.0))\n'
NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('ranks, recipe, options', [
    (1, 'linear_probing_tiny', ['--total-batch', 4]),
    pytest.param(2, 'linear_probing_tiny', [], marks=pytest.mark.slow),
    (2, 'few_shot_tiny', ['--engine', 'fsdp2'])])
def test_a_learning_rate_that_is_too_large(zygote, shared_data, tmp_path, ranks, recipe, options):
    config = write_config(tmp_path / 'config.py', shared_data, recipe, CLIPPED)
    text = zygote.train(config, '--work-dir', tmp_path / 'run', '--seed', 0, *options,
                        '--cfg-options', 'optimizer.lr=1e30', ranks=ranks, code=1)
    lines = [line for line in text.splitlines() if line.startswith('error')]
    suffix = 'dcp' if 'fsdp2' in options else 'pth'
    # The launcher may end a rank before it has said the same.
    assert 1 <= len(lines) <= ranks and len({line.split(': ', 1)[1] for line in lines}) == 1
    assert 'is nan in iteration 2, at a learning rate of 7.5e+29: the run is stopped' in lines[0]
    assert f'run/iter_1.{suffix} is its last checkpoint' in lines[0]
    assert '--allow-nonfinite' in lines[0] and 'Traceback' not in text
    kept = {path.name for path in (tmp_path / 'run').glob('*_*.*') if path.suffix == f'.{suffix}'}
    assert kept == {f'iter_1.{suffix}', f'best_mIoU_iter_1.{suffix}'}
    assert text.count('evaluation after iteration') == 1


def test_unless_it_is_allowed_to(zygote, shared_data, tmp_path):
    config = write_config(tmp_path / 'config.py', shared_data, extra=EVERY)
    zygote.train(config, '--work-dir', tmp_path / 'run', '--allow-nonfinite', '--no-validate',
                 '--cfg-options', 'optimizer.lr=1e30')
    assert (tmp_path / 'run/iter_4.pth').exists()


class Run:
    """Stands for a runner whose iterations have given losses and gradient norms."""

    def __init__(self, work_dir='.', world_size=1):
        self.model, self.work_dir, self.world_size = nn.Linear(2, 2), str(work_dir), world_size
        self.hook, self.iter, self.log_buffer = DivergenceHook(), 0, DeferredLogBuffer()
        self.hooks = [self.hook]

    def current_lr(self):
        return [0.1 * (self.iter + 1), 0.01]

    def step(self, loss, norm=None):
        self.outputs = dict(loss=torch.tensor(1.), log_vars=dict(loss=torch.tensor(loss)))
        if norm is not None:
            self.log_buffer.update({'grad_norm': torch.tensor(norm)})
        self.hook.after_train_iter(self)
        self.iter += 1


@pytest.mark.parametrize('loss, norm, message', [
    (NAN, 1., 'the loss is nan in iteration 2, at a learning rate of 0.2'),
    (INF, None, 'the loss is inf in iteration 2'),
    (1., INF, 'the gradient norm is inf in iteration 2')])
def test_the_first_number_that_is_not_finite_is_named(tmp_path, loss, norm, message):
    run = Run(tmp_path)
    run.step(1., 1.)
    with pytest.raises(Diverged, match=f'{message}.*it has no checkpoint yet'):
        run.step(loss, norm)


def test_gradients_of_a_scaled_loss_may_overflow():
    run = Run()
    run.hooks.append(SimpleNamespace(loss_scaler=object()))
    run.step(1., INF)
    with pytest.raises(Diverged, match='the loss is nan'):
        run.step(NAN, INF)


def test_weights_are_checked_before_they_are_saved(tmp_path):
    run = Run(tmp_path)
    run.step(1.)
    run.model.weight.data[1, 0] = NAN
    run.model.weight.requires_grad_(False)
    divergence.check_finite(run)  # frozen weights are as they were
    run.model.weight.requires_grad_(True)
    with pytest.raises(Diverged, match='^weight holds nan in iteration 2'):
        divergence.check_finite(run)


def test_numbers_of_a_gpu_are_read_when_they_have_arrived(tmp_path, monkeypatch):
    """The host does not wait, and names the iteration that was the first."""
    waits, done = [], []

    class Copy:
        def __init__(self, iteration: int, values):
            self.iteration, self.values = iteration, torch.tensor([float(x) for x in values])

        def has_arrived(self) -> bool:
            return self.iteration in done

        def wait(self) -> torch.Tensor:
            if not self.has_arrived():
                waits.append(self.iteration)
                done.append(self.iteration)
            return self.values

    monkeypatch.setattr(divergence, '_send', lambda iteration, lr, numbers: divergence._PendingCopy(
        iteration, lr, tuple(numbers), Copy(iteration, numbers.values())))
    run = Run(tmp_path)
    for loss in (1., NAN, NAN, INF):
        run.step(loss)
    assert not waits and not divergence.has_diverged(run)
    done += [1, 2]
    assert divergence.has_diverged(run) and not waits
    with pytest.raises(Diverged, match='nan in iteration 2, at a learning rate of 0.2'):
        divergence.check_finite(run)
    done.clear()
    other = Run(tmp_path)
    other.step(1.)
    other.step(NAN)
    with pytest.raises(Diverged, match='nan in iteration 2'):
        divergence.check_finite(other)  # before a checkpoint it waits
    assert waits == [3, 4, 1, 2]


def stop_together(path: str) -> None:
    dist.init_process_group('gloo')
    run = Run(world_size=2)
    run.step(1.)
    run.step(NAN if dist.get_rank() == 1 else 1.)
    run.model.weight.data[0, 0] = NAN  # by the mean of the gradients, on both
    run.iter -= 1  # hooks are called before it counts
    knows = divergence.has_diverged(run)
    try:
        divergence.check_finite(run)
    except Diverged as error:
        torch.save((knows, str(error)), f'{path}.{dist.get_rank()}')
    dist.destroy_process_group()


def test_ranks_stop_together(zygote, tmp_path):
    zygote.run(__file__, tmp_path / 'out', ranks=2)
    knows, messages = zip(*(torch.load(tmp_path / f'out.{rank}') for rank in (0, 1)))
    assert knows == (False, True) and messages[0] == messages[1]
    assert messages[0].startswith('the loss is nan in iteration 2')


if __name__ == '__main__':
    stop_together(sys.argv[1])
