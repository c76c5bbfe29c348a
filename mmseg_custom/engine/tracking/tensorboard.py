"""TensorBoard: events in ``tf_logs`` of the work dir.

A resumed run writes a further file there. What was logged after its checkpoint is purged by it:
TensorBoard, and what reads events as it does, shows each iteration once.
"""
import os
import os.path as osp
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.runner import HOOKS, BaseRunner, EvalHook

from ...compat.event_files import quiet_event_files
from ...errors import InputError
from ..log_files import warn_of_loss
from .description import Description
from .lines import Line, SavedCheckpoint
from .tracker import Tracker

FOLDER = 'tf_logs'


@HOOKS.register_module('TensorboardLoggerHook', force=True)
class TensorboardTracker(Tracker):
    """Writes events for TensorBoard; replaces mmcv's hook.

    Each line is flushed, so that a kill loses none before the last checkpoint.

    Args:
        log_dir: Folder of the events; default: ``tf_logs`` in the work dir. In a sweep, each run
            gets a folder of its own in it.
        interval: See :class:`.tracker.Tracker`.
        ignore_last: See mmcv's ``LoggerHook``.
        reset_flag: See mmcv's ``LoggerHook``.
        by_epoch: See mmcv's ``LoggerHook``.
    """

    title = 'TensorBoard'
    _writer: Any

    def __init__(self, log_dir: str | None = None, interval: int = 10, ignore_last: bool = True,
                 reset_flag: bool = False, by_epoch: bool = True):
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self.log_dir = log_dir

    def open(self, runner: BaseRunner, description: Description) -> Mapping[str, int]:
        """Opens the file of events.

        Raises:
            InputError: If TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError('TensorboardLoggerHook needs the package tensorboard: pip install '
                             'tensorboard, or leave the hook out') from error
        quiet_event_files()
        self.log_dir = self.log_dir or osp.join(runner.work_dir, FOLDER)
        if description.sweep and not _is_within(self.log_dir, runner.work_dir):
            self.log_dir = osp.join(self.log_dir, description.name)
        self.title = self.log_dir
        first = runner.iter + 1 if runner.iter else 0
        try:
            earlier = osp.isdir(self.log_dir) and any(os.scandir(self.log_dir))
            repeats = any(hook.is_due(runner) for hook in runner.hooks
                          if isinstance(hook, EvalHook) and hasattr(hook, 'is_due'))
            lines = _validated(self.log_dir, runner.iter) if earlier and repeats else {}
            self._writer = SummaryWriter(self.log_dir, purge_step=first if earlier else None)
            if not first:
                self._describe(description)
            self._writer.flush()
        except OSError as error:
            self._lost = True
            warn_of_loss(runner.logger, self.log_dir, error)
            return {}
        return lines

    def _describe(self, description: Description) -> None:
        facts = '\n'.join(f'- {name}: `{value}`' for name, value in description.facts.items())
        self._writer.add_text('run', facts, 0)
        self._writer.add_text('config', '\n'.join(
            f'    {line}' for line in description.text.splitlines()), 0)  # a block of code

    def send(self, line: Line) -> None:
        """Writes the events of a line."""
        for name, value in line.values.items():
            self._writer.add_scalar(name, value, line.step)
        for picture in line.pictures:
            self._writer.add_image(f'predictions/{picture.number}_{picture.name}',
                                   np.asarray(picture.image), line.step, dataformats='HWC')
        self._writer.flush()

    def note(self, checkpoint: SavedCheckpoint, step: int) -> None:
        """Writes the path of a checkpoint."""
        facts = ', '.join(f'{name} `{value}`' for name, value in checkpoint.facts.items())
        self._writer.add_text(f'checkpoint/{checkpoint.role}', facts, step)
        self._writer.flush()

    def close(self, summary: Mapping[str, float | str]) -> None:
        """Closes the file; the best score is in the events of the evaluations."""
        self._writer.close()


def _validated(folder: str, iteration: int) -> dict[str, int]:
    """Tells whether events hold the evaluation of an iteration that is due to be repeated.

    So it is after a kill between its log and the record of its score, which comes with the best
    checkpoint. What is after the iteration is purged.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(folder, dict(scalars=0, images=1))
    events.Reload()
    steps = {point.step for name in events.Tags()['scalars'] if name.startswith('val/')
             and not name.endswith('_val') for point in events.Scalars(name)}
    return dict(val=iteration) if iteration in steps else {}


def _is_within(folder: str, parent: str) -> bool:
    folder, parent = osp.realpath(folder), osp.realpath(parent)
    return osp.commonpath([folder, parent]) == parent
