"""Runs that count in epochs: the learning rates, evaluations and checkpoints of mmcv's own."""
import copy
import logging

import pytest
import torch
from helpers.data import SMALL_LINEAR, write_config
from helpers.runs import losses
from mmcv import Config
from mmcv.runner import EpochBasedRunner, Hook, epoch_based_runner, iter_based_runner
from torch import nn

from mmseg_custom.engine.batch import Batch
from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.epochs import count_in_iterations, epoch_length
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.runner import SegRunner
from mmseg_custom.errors import InputError

LENGTH, EPOCHS = 3, 4
SCHEDULES = [
    dict(policy='step', step=[1, 3], gamma=0.1),
    dict(policy='step', step=2, warmup='linear', warmup_iters=4, warmup_ratio=0.1),
    dict(policy='poly', power=0.9, min_lr=1e-4),
    dict(policy='poly', power=0.9, by_epoch=False),
    dict(policy='CosineAnnealing', min_lr=0, warmup='exp', warmup_iters=2, warmup_ratio=0.1,
         warmup_by_epoch=True),
    dict(policy='cyclic', target_ratio=(10, 1e-4))]


class Toy(nn.Module):
    """A model with the steps that a runner calls."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, img):
        return img

    def train_step(self, batch, optimizer):
        loss = self.weight.sum()
        return dict(loss=loss, log_vars=dict(loss=0.), num_samples=1)


class Events(Hook):
    """Notes the learning rate of each iteration, and the ends of epochs."""

    def __init__(self):
        self.seen = []

    def before_train_epoch(self, runner):
        self.seen.append(('begin', runner.epoch, runner.iter))

    def after_train_epoch(self, runner):
        self.seen.append(('end', runner.epoch, runner.iter))

    def after_train_iter(self, runner):
        self.seen.append((runner.iter, runner.current_lr(), runner.current_momentum()))


class Endless(list):
    """A loader without an end."""

    def __iter__(self):
        while True:
            yield {}


def events(kind, cfg, loader, tmp_path) -> list:
    model, events = Toy(), Events()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = dict(cfg.runner)
    options.pop('type')
    runner = kind(model, optimizer=optimizer, logger=logging.getLogger('epochs'),
                  work_dir=str(tmp_path), **options)
    runner.register_training_hooks(copy.deepcopy(cfg.lr_config), dict(), None, None,
                                   copy.deepcopy(cfg.get('momentum_config')))
    runner.register_hook(events, priority='LOWEST')
    runner.run([loader], [('train', 1)])
    return events.seen


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_schedules_and_hooks_are_those_of_mmcv(monkeypatch, tmp_path, schedule):
    for module in (epoch_based_runner, iter_based_runner):
        monkeypatch.setattr(module.time, 'sleep', lambda _: None)
    cfg = Config(dict(runner=dict(type='EpochBasedRunner', max_epochs=EPOCHS), lr_config=schedule))
    if schedule['policy'] == 'step':
        cfg.momentum_config = dict(policy='step', step=[2], gamma=0.5)
    expected = events(EpochBasedRunner, cfg, [{}] * LENGTH, tmp_path)
    found, _ = count_in_iterations(cfg, LENGTH)
    assert events(SegRunner, found, Endless([{}] * LENGTH), tmp_path) == expected
    assert len(expected) == EPOCHS * (LENGTH + 2)
    again, notes = count_in_iterations(Config(found._cfg_dict.to_dict()), LENGTH)
    assert again.runner == found.runner and not notes


def test_intervals_become_iterations():
    cfg = Config(dict(
        runner=dict(type='EpochBasedRunner', max_epochs=12), lr_config=dict(policy='fixed'),
        checkpoint_config=dict(interval=2, max_keep_ckpts=3), workflow=[('train', 2), ('val', 1)],
        evaluation=dict(start=3, metric='mIoU')))
    found, notes = count_in_iterations(cfg, 10, 7)
    assert found.runner == dict(type='IterBasedRunner', max_iters=120, epoch_length=10)
    assert found.checkpoint_config == dict(interval=20, max_keep_ckpts=3, by_epoch=False)
    assert found.evaluation == dict(interval=10, start=30, metric='mIoU')
    assert found.workflow == [('train', 20), ('val', 7)]
    assert '12 epoch(s) of 10 iteration(s)' in notes[0] and cfg.runner.max_epochs == 12


def test_epochs_in_a_run_that_counts_iterations():
    """Mmcv neither saves such checkpoints nor changes such a learning rate, and says nothing."""
    cfg = Config(dict(runner=dict(type='IterBasedRunner', max_iters=25),
                      lr_config=dict(policy='step', step=[1], by_epoch=True),
                      checkpoint_config=dict(interval=1, by_epoch=True), evaluation=dict()))
    found, _ = count_in_iterations(cfg, 10)
    assert found.runner == dict(type='IterBasedRunner', max_iters=25, epoch_length=10)
    assert found.checkpoint_config == dict(interval=10, by_epoch=False)
    assert found.evaluation == {}
    plain = Config(dict(runner=dict(type='IterBasedRunner', max_iters=25),
                        lr_config=dict(policy='poly'), checkpoint_config=dict(interval=5)))
    assert count_in_iterations(plain, 10)[0] is plain


@pytest.mark.parametrize('images, batch, length', [
    (20210, Batch(2, 8), 1263), (7, Batch(2, 2), 2), (7, Batch(2, 1, 2), 1), (1, Batch(4), 1)])
def test_an_epoch_is_as_long_as_with_mmseg(images, batch, length):
    assert epoch_length(images, batch) == length


@pytest.mark.parametrize('runner, message', [
    (None, 'runner={}: no length'),
    (dict(type='IterBasedRunner', max_iters=4, max_epochs=1), 'max_iters and max_epochs'),
    (dict(type='EpochBasedRunner', max_epochs=0), 'runner.max_epochs=0: expected a number of epo'),
    (dict(type='EpochBasedRunner', max_iters=4), 'does not go with an endless loader'),
    (dict(type='EpochRunner', max_epochs=4), 'does not go with an endless loader')])
def test_lengths_that_are_refused(runner, message):
    with pytest.raises(InputError, match=message):
        count_in_iterations(Config(dict(runner=runner)), 10)


def test_the_length_of_a_base_config_is_not_that_of_an_epoch_based_run():
    cfg = Config(dict(runner=dict(type='EpochBasedRunner', max_epochs=2, max_iters=80000)))
    assert count_in_iterations(cfg, 10)[0].runner.max_iters == 20


def test_total_epochs(shared_data, tmp_path):
    config = write_config(tmp_path / 'config.py', shared_data)
    cfg = load_config(str(config), {'total_epochs': 3})
    cfg.runner = None
    assert resolve_config(cfg, RunOptions())[0].runner == dict(type='EpochBasedRunner',
                                                               max_epochs=3)


def test_a_run_by_epochs_is_resumed_within_one(zygote, shared_data, tmp_path):
    config = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR + """
runner = dict(_delete_=True, type='EpochBasedRunner', max_epochs=3)
lr_config = dict(_delete_=True, policy='step', step=[1, 2], gamma=0.1)
checkpoint_config = dict(_delete_=True, interval=2)
evaluation = dict(interval=2)
data['train']['max_image_num'] = 4
""")
    zygote.train(config, '--work-dir', tmp_path / 'whole', '--seed', 0)
    text = zygote.train(config, '--work-dir', tmp_path / 'resumed', '--resume-from',
                        tmp_path / 'whole/iter_4.pth')
    kept = {path.name for path in (tmp_path / 'whole').glob('iter_*')}
    assert kept == {'iter_4.pth', 'iter_6.pth'} and 'evaluation after' not in text
    logged = losses(tmp_path / 'whole')
    assert [line['lr'] for line in logged.values()] == [0.01, 0.01, 0.001, 0.001, 1e-4, 1e-4]
    assert losses(tmp_path / 'resumed') == {n: logged[n] for n in (5, 6)}
