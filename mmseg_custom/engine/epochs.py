"""Settings that count in epochs -> settings that count in iterations.

The order of images is one endless stream, so that an iteration number is a position in the data; an
epoch is therefore a number of iterations, as many as mmseg's loader has batches. What mmcv changes
once an epoch, such as a learning rate with ``by_epoch=True``, still changes once an epoch: the
runner calls its hooks at these iterations.
"""
import copy
from typing import Any

from mmcv import Config
from mmcv.runner import RUNNERS, EpochBasedRunner

from ..errors import InputError
from .batch import Batch

BY_EPOCH = ('EpochBasedRunner', 'Runner')  # the latter is mmcv's former name
NEVER_BY_EPOCH = ('cyclic', 'onecycle')  # policies that count iterations, whatever the runner


def epoch_length(images: int, batch: Batch) -> int:
    """Returns the number of iterations of an epoch, at least 1, as with mmseg's loader."""
    share = -(-images // batch.ranks)  # its sampler repeats images until all ranks have as many
    return max(share // (batch.samples * batch.accumulation), 1)


def count_in_iterations(cfg: Config, length: int, validation_length: int = 1
                        ) -> tuple[Config, list[str]]:
    """Translates what counts in epochs.

    Args:
        cfg: Resolved config of a training; it is not changed.
        length: Number of iterations of an epoch.
        validation_length: Number of batches of a pass over the validation data.

    Returns:
        Config that counts in iterations, the same one if it did already; and lines for the log.

    Raises:
        InputError: If the length of the run is not given, or in a way that is not supported.
    """
    runner = check_length(cfg)
    if 'epoch_length' in runner:  # of a config that was translated before
        return cfg, []
    by_epoch = runner['type'] in BY_EPOCH
    found, notes = copy.deepcopy(cfg), []
    if (epochs := runner.pop('max_epochs', None)) is not None:
        runner.update(type='IterBasedRunner', max_iters=epochs * length)
        notes = [f'{epochs} epoch(s) of {length} iteration(s): intervals, names of checkpoints and '
                 'the log count iterations']
    schedules = [_count_schedule(found.get(name) or {}, by_epoch, length)
                 for name in ('lr_config', 'momentum_config')]
    if by_epoch or 'epochs' in schedules:
        runner['epoch_length'] = length
    saves = _count_checkpoints(found.get('checkpoint_config') or {}, by_epoch, length)
    if by_epoch:
        _count_evaluations(found, length)
        _count_workflow(found, length, validation_length)
    found.runner = runner
    changed = runner != cfg.runner or saves or any(schedules)
    return (found, notes) if changed else (cfg, [])


def check_length(cfg: Config) -> dict[str, Any]:
    """Checks the length of a run.

    Returns:
        Options of its runner, without a number of iterations where epochs are counted.

    Raises:
        InputError: If it is not given, or in a way that is not supported.
    """
    runner = dict(cfg.get('runner') or {})
    if runner.get('type') in BY_EPOCH and runner.get('max_epochs') is not None:
        runner.pop('max_iters', None)  # of a base config
    _check(runner)
    return runner


def _check(runner: dict[str, Any]) -> None:
    example = "expected runner=dict(type='IterBasedRunner', max_iters=80000)"
    given = [name for name in ('max_iters', 'max_epochs') if runner.get(name) is not None]
    if 'type' not in runner or len(given) != 1:
        raise InputError(f'runner={runner}: {" and ".join(given) or "no length"}: {example}, or '
                         "dict(type='EpochBasedRunner', max_epochs=12)")
    name, length = given[0], runner[given[0]]
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise InputError(f'runner.{name}={length!r}: expected a number of '
                         f'{name.removeprefix("max_")}, 1 or more')
    kind = RUNNERS.get(runner['type'])
    if kind is None or runner['type'] not in BY_EPOCH and issubclass(kind, EpochBasedRunner) or (
            runner['type'] in BY_EPOCH and name == 'max_iters'):
        raise InputError(f'runner={runner} does not go with an endless loader: {example}, or '
                         "dict(type='EpochBasedRunner', max_epochs=12)")


def _count_schedule(schedule: dict, by_epoch: bool, length: int) -> str:
    """Returns 'epochs' for a schedule that changes once an epoch, which it counts by itself.

    A warm-up counts iterations; if it counted epochs, and nothing else did, 'warm-up' is returned.
    """
    changed = ''
    if schedule.get('warmup_by_epoch'):
        schedule.update(warmup_by_epoch=False, warmup_iters=schedule['warmup_iters'] * length)
        changed = 'warm-up'
    if str(schedule.get('policy')).lower() in NEVER_BY_EPOCH or not schedule:
        return changed
    schedule.setdefault('by_epoch', by_epoch)
    return 'epochs' if schedule['by_epoch'] else changed


def _count_checkpoints(options: dict, by_epoch: bool, length: int) -> bool:
    """Returns whether checkpoints counted epochs."""
    if not options or not options.get('by_epoch', by_epoch):
        return False
    options.update(by_epoch=False, interval=options.get('interval', -1) * length)
    return True


def _count_evaluations(cfg: Config, length: int) -> None:
    options = cfg.setdefault('evaluation', {})
    options.pop('by_epoch', None)
    options['interval'] = options.get('interval', 1) * length
    if options.get('start'):
        options['start'] *= length


def _count_workflow(cfg: Config, length: int, validation_length: int) -> None:
    lengths = dict(train=length, val=validation_length)
    if cfg.get('workflow'):
        cfg.workflow = [(mode, number * lengths.get(mode, 1)) for mode, number in cfg.workflow]
