"""What is logged of a training: figures after an iteration, and references to checkpoints.

losses of an iteration   -> Line('train', 50, {'train/loss': ..., 'learning_rate': ...})
metrics of an evaluation -> Line('val', 1000, {'val/mIoU': ...}, pictures)
loss of validation data  -> Line('val_loss', 1000, {'val/loss_val': ...})
a new checkpoint         -> SavedCheckpoint('best', path, ...)
"""
import numbers
import os.path as osp
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from mmcv.runner import BaseRunner, EvalHook
from mmcv.runner.hooks import LoggerHook

from ...checkpoint.provenance import known_sha256
from ...peak_memory import process_peak
from ...units import MIB

if TYPE_CHECKING:  # Hooks are registered when the package is imported, which this would delay.
    from ..prediction_panel import Picture

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
    pictures: Sequence['Picture'] = field(default_factory=list)


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
    pictures: Sequence = next((each.pictures for each in runner.hooks if isinstance(each, EvalHook)
                     and hasattr(each, 'pictures')), [])
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


def checkpoints_of(runner: BaseRunner) -> Iterator[tuple[str, str]]:
    """Yields the roles and paths of the checkpoints that are there by now."""
    latest = ((runner.meta or {}).get('hook_msgs') or {}).get('last_ckpt')
    best = [getattr(hook, 'best_ckpt_path', None) for hook in runner.hooks
            if isinstance(hook, EvalHook)]
    for role, path in (('latest', latest), *(('best', path) for path in best)):
        if path:
            yield role, path
