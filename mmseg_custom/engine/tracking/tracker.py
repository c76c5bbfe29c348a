"""What every tracker gets of a training, on rank 0, and what becomes of a tracker that fails.

    losses of an iteration   -> Line('train', 50, {'train/loss': ..., 'learning_rate': ...})
    metrics of an evaluation -> Line('val', 1000, {'val/mIoU': ...}, pictures)
    loss of validation data  -> Line('val_loss', 1000, {'val/loss_val': ...})
    a new checkpoint         -> SavedCheckpoint('best', path, ...)

A tracker that cannot start ends the run before its first iteration; one that fails later is a
warning, and the run goes on without it.
"""
import numbers
import os.path as osp
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from mmcv.runner import BaseRunner, EvalHook
from mmcv.runner.dist_utils import master_only
from mmcv.runner.hooks import LoggerHook

from ...checkpoint.provenance import known_sha256
from ...errors import InputError
from ...peak_memory import process_peak
from ...units import MIB
from ..evaluation_hook import SegEvalHook
from ..prediction_panel import Picture
from ..run import Run
from .description import Description, describe

SKIPPED = ('eval_iter_num',)  # names of the log that are no figures


@dataclass(frozen=True)
class Line:
    """Figures after an iteration.

    Attributes:
        kind: 'train', 'val' (metrics of an evaluation) or 'val_loss' (loss of validation data).
        step: Number of iterations done.
        values: Name -> figure.
        pictures: Pictures of the evaluation.
    """
    kind: str
    step: int
    values: Mapping[str, float]
    pictures: Sequence[Picture] = field(default_factory=list)


class SavedCheckpoint(NamedTuple):
    """A checkpoint, to which a tracker refers by its path.

    Attributes:
        role: 'latest' or 'best'.
        path: Absolute path of the file or folder.
        iteration: Iteration in its name, or None.
        size: Size in bytes; None of a folder.
        sha256: SHA-256 of the file, if this process has computed it before; else None.
    """
    role: str
    path: str
    iteration: int | None
    size: int | None
    sha256: str | None

    @classmethod
    def of(cls, role: str, path: str) -> 'SavedCheckpoint':
        """Describes a checkpoint without reading it."""
        named, is_file = re.findall(r'\d+', osp.basename(path)), osp.isfile(path)
        return cls(role, osp.abspath(path), int(named[-1]) if named else None,
                   osp.getsize(path) if is_file else None, known_sha256(path) if is_file else None)

    @property
    def facts(self) -> dict[str, str | int]:
        """What is known of it, by name."""
        found = dict(path=self.path, iteration=self.iteration, bytes=self.size, sha256=self.sha256)
        return {name: value for name, value in found.items() if value is not None}


class Tracker(LoggerHook):
    """Base of the hooks that track a training: see the list at the top of this file.

    Args:
        interval: Number of iterations between lines of losses.
        ignore_last: See mmcv's ``LoggerHook``.
        reset_flag: See mmcv's ``LoggerHook``.
        by_epoch: See mmcv's ``LoggerHook``.

    Attributes:
        title: Name of the tracker for people.
        num_images: Number of pictures of an evaluation that it asks for.
        run: Prepared run; None where mmseg's own tools have built the runner.
    """

    title: str
    num_images = 0
    run: Run | None = None

    def __init__(self, interval: int = 10, ignore_last: bool = True, reset_flag: bool = False,
                 by_epoch: bool = True):
        super().__init__(interval, ignore_last, reset_flag, by_epoch)
        self._logged: Mapping[str, int] = {}
        self._noted: set[tuple[str, str]] = set()
        self._lost = False

    @abstractmethod
    def open(self, runner: BaseRunner, description: Description) -> Mapping[str, int]:
        """Begins a tracked run, or goes on in the one of a run that is resumed.

        Args:
            runner: Runner; its ``iter`` is above 0 if it is resumed.
            description: Description of the run.

        Returns:
            Kind of a line -> last iteration of which the tracked run has one; nothing is logged
            twice.

        Raises:
            InputError: If that fails.
        """

    @abstractmethod
    def send(self, line: Line) -> None:
        """Logs figures and pictures."""

    @abstractmethod
    def note(self, checkpoint: SavedCheckpoint, step: int) -> None:
        """Logs a reference to a checkpoint, before the iteration ``step``.

        A resumed run does so once more for those that it has found.
        """

    @abstractmethod
    def close(self, summary: Mapping[str, float | str]) -> None:
        """Ends the tracked run, with its best score if there is one."""

    def before_run(self, runner: BaseRunner) -> None:
        """Begins the tracked run, on rank 0.

        Raises:
            InputError: If that fails.
        """
        super().before_run(runner)
        if runner.rank == 0:
            self._logged = self.open(runner, describe(runner, self.run))

    @master_only
    def log(self, runner: BaseRunner) -> None:
        """Logs a line, unless the tracked run has it from before an interruption."""
        if self._lost:
            return
        line = line_of(self, runner)
        if line.values and line.step > self._logged.get(line.kind, 0):
            self._guarded(runner, self.send, line)

    def before_train_iter(self, runner: BaseRunner) -> None:
        """Notes the checkpoints of the last iteration."""
        if runner.rank == 0:
            self._note_checkpoints(runner)

    def after_run(self, runner: BaseRunner) -> None:
        """Ends the tracked run."""
        if runner.rank == 0:
            self._note_checkpoints(runner)
            self._guarded(runner, self.close, summary_of(runner))

    def _note_checkpoints(self, runner: BaseRunner) -> None:
        for role, path in _checkpoints(runner):
            if (role, path) not in self._noted and osp.exists(path):
                self._noted.add((role, path))
                self._guarded(runner, self._note, role, path, runner.iter + 1)

    def _note(self, role: str, path: str, step: int) -> None:
        self.note(SavedCheckpoint.of(role, path), step)

    def _guarded(self, runner: BaseRunner, call: Callable, *arguments: object) -> None:
        """Calls a tracker; the first error is a warning, after which it is left alone."""
        if self._lost:
            return
        try:
            call(*arguments)
        except Exception as error:  # A run of days must not end because a server does.
            self._lost = True
            runner.logger.warning('%s: lines are lost from here on (%s); the run goes on',
                                  self.title, reason_of(error))


def reason_of(error: BaseException) -> str:
    """Returns the first line of an error."""
    text = getattr(error, 'strerror', None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def refused(hook: str, error: Exception, way_out: str) -> InputError:
    """Returns the error of a tracker that cannot start."""
    return InputError(f'{hook}: {reason_of(error)}; {way_out}, or leave the hook out')


def line_of(hook: LoggerHook, runner: BaseRunner) -> Line:
    """Collects what is to be logged after an iteration."""
    output, step = runner.log_buffer.output, hook.get_iter(runner)
    prefix = hook.get_mode(runner)
    values = {f'{prefix}/{name}': float(value) for name, value in output.items()
              if name not in SKIPPED and isinstance(value, numbers.Real)}
    if prefix == 'train':
        values.update(_of_training(runner, output), **_rates(hook, runner))
        return Line('train', step, values)
    if 'loss_val' in output:
        return Line('val_loss', step, values)
    pictures = next((each.pictures for each in runner.hooks if isinstance(each, SegEvalHook)), [])
    return Line('val', step, values, pictures)


def _of_training(runner: BaseRunner, output: Mapping) -> dict[str, float]:
    """Returns throughput, and the peak memory of rank 0: of its GPU, else of the process."""
    images = ((runner.outputs or {}).get('num_samples') or 0) * runner.world_size
    device = getattr(runner.model, 'output_device', None)
    peak = process_peak('cpu' if device is None else torch.device('cuda', device))
    found = {'train/memory_MiB': float(peak // MIB)}
    if images and output.get('time'):
        found['train/images_per_second'] = images / output['time']
    return found


def _rates(hook: LoggerHook, runner: BaseRunner) -> dict[str, float]:
    """Returns learning rate and momentum of the first group, and the range of all groups' rates.

    With layer-wise decay there are dozens of groups.
    """
    rates = runner.current_lr()
    found = {**hook.get_lr_tags(runner), **hook.get_momentum_tags(runner)}
    if isinstance(rates, list) and len(set(rates)) > 1:
        found.update({'learning_rate_min': min(rates), 'learning_rate_max': max(rates)})
    return found


def summary_of(runner: BaseRunner) -> dict[str, float | str]:
    """Returns the best score and its checkpoint, where there is one."""
    record = (runner.meta or {}).get('hook_msgs') or {}
    return {name: record[name] for name in ('best_score', 'best_ckpt') if record.get(name)}


def _checkpoints(runner: BaseRunner) -> Iterator[tuple[str, str]]:
    """Yields the roles and paths of the checkpoints that are there by now."""
    latest = ((runner.meta or {}).get('hook_msgs') or {}).get('last_ckpt')
    best = [getattr(hook, 'best_ckpt_path', None) for hook in runner.hooks
            if isinstance(hook, EvalHook)]
    for role, path in (('latest', latest), *(('best', path) for path in best)):
        if path:
            yield role, path
