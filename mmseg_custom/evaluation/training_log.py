"""Reads the logs of a training: losses, learning rates and metrics over its iterations.

A work dir has a log of each start of its run, ``20261124_190000.log.json``, with a JSON object a
line: the run itself first, then lines of the training (mode 'train') and of evaluations (mode
'val'). ``iter`` of a line is an iteration of the training, or a count within an epoch, or that of
the batches of an evaluation; where it is not the first, ``step`` is. ``start`` of the first line is
the number of iterations that were done before. Logs of mmcv's own hook have neither: there, an
evaluation counts for the last logged iteration before it.

Letters: `T` lines of the training, `E` evaluations that have a figure.
"""
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SUFFIX = '.log.json'
LOSS = 'loss'  # the total
_NO_FIGURES = frozenset(('mode', 'epoch', 'iter', 'step', 'lr'))
_MOST_ITERATIONS = 2**53
Row = dict[str, float]


@dataclass(frozen=True)
class Curve:
    """A figure over the iterations in which it was measured.

    Attributes:
        iterations: Numbers of the iterations (E,), ascending, int64.
        values: Values (E,), float64; NaN where it was NaN.
    """
    iterations: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class TrainingLog:
    """What was logged of a training, over all its starts.

    Attributes:
        iterations: Iterations of the lines of the training (T,), ascending, int64.
        losses: Losses (T,) by name, 'loss' the total; NaN where a line has none, or NaN.
        learning_rates: Learning rates (T,) of the first parameter group, by optimizer; 'lr' where
            there is one optimizer.
        figures: Other figures of these lines (T,) by name: 'time' and 'data_time' in seconds an
            iteration, 'memory' in MiB, 'grad_norm', 'decode.acc_seg' in percent.
        metrics: Figures of evaluations by name, 0..1 ('mIoU', 'IoU.wall'), and losses of validation
            images ('loss_val'), each with its iterations.
        classes: Names of the classes, as the newest log has them; empty if it does not.
    """
    iterations: np.ndarray
    losses: Mapping[str, np.ndarray]
    learning_rates: Mapping[str, np.ndarray]
    figures: Mapping[str, np.ndarray]
    metrics: Mapping[str, Curve]
    classes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is logged yet, neither of the training nor of an evaluation."""
        return not (self.iterations.size or self.metrics)

    @property
    def means(self) -> dict[str, Curve]:
        """Metrics of all classes together, such as 'mIoU'; no best ones, and none of losses."""
        return {name: curve for name, curve in self.metrics.items() if '.' not in name
                and LOSS not in name and not name.startswith('best_') and 'acc_seg' not in name}


EMPTY = TrainingLog(np.zeros(0, np.int64), {}, {}, {}, {})


def read_training_log(work_dir: str) -> TrainingLog:
    """Reads all logs in the work dir of a training, or of a head of a sweep.

    What a later start of the run repeats replaces what an earlier one logged. Lines that are cut
    short or damaged are skipped. Without logs, all of it is empty.

    Raises:
        OSError: If a log cannot be read.
    """
    logs = [list(_lines(path)) for path in _paths(work_dir)]
    epoch_length = _epoch_length(logs)
    training: dict[int, Row] = {}
    rates: dict[int, Row] = {}
    evaluations: dict[int, Row] = {}
    classes: tuple[str, ...] = ()
    for lines in logs:
        classes = _classes(lines) or classes
        start = _start(lines, epoch_length)
        for found in (training, rates, evaluations):
            for later in [one for one in found if start is not None and one > start]:
                del found[later]  # of an earlier start that came further, or another run
        last = max(training, default=None)
        for line in lines:
            iteration = _iteration(line, last, epoch_length)
            if iteration is None:
                continue
            figures = {name: value for name, value in _numbers(line).items()
                       if name not in _NO_FIGURES}
            if line['mode'] == 'train':
                last = iteration
                training[iteration] = figures
                rates[iteration] = _numbers(line['lr'] if isinstance(line.get('lr'), dict)
                                            else dict(lr=line.get('lr')))
            else:
                evaluations[iteration] = {**evaluations.get(iteration, {}), **figures}
    return _assembled(training, rates, evaluations, classes)


def _paths(work_dir: str) -> list[str]:
    """Lists the logs of a work dir in the order of their timestamps."""
    names = sorted(os.listdir(work_dir)) if os.path.isdir(work_dir) else []
    return [os.path.join(work_dir, name) for name in names if name.endswith(SUFFIX)]


def _lines(path: str) -> Iterator[dict[str, Any]]:
    """Gives the lines of a log that are whole: its first line, and those of a mode."""
    with open(path, encoding='utf-8', errors='replace') as file:
        for line in file:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):  # cut short when the run was killed
                continue
            if isinstance(found, dict):
                if found.get('mode') in ('train', 'val'):
                    yield found
                elif 'mode' not in found:
                    yield {name: found[name] for name in ('start', 'CLASSES') if name in found}


def _classes(lines: list[dict]) -> tuple[str, ...]:
    for line in lines:
        names = line.get('CLASSES')
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def _start(lines: list[dict], epoch_length: int | None) -> int | None:
    """Returns the number of iterations done before a log; None if it tells nothing."""
    for line in lines:
        if 'mode' not in line and (start := _whole(line.get('start'))) is not None:
            return start
        if line.get('mode') == 'train':
            first = _iteration(line, None, epoch_length)
            return None if first is None else first - 1
    return None


def _epoch_length(logs: list[list[dict]]) -> int | None:
    """Returns about how many iterations an epoch has, where logs count within epochs.

    The logs do not tell: it is the largest count, so that up to a log's interval may be missing.
    """
    longest, counts_within = 0, False
    for lines in logs:
        before = (0, 0)
        for line in lines:
            now = _whole(line.get('epoch')), _whole(line.get('iter'))
            if line.get('mode') != 'train' or 'step' in line or now[0] is None or now[1] is None:
                continue
            counts_within |= now[0] > before[0] > 0 and now[1] <= before[1]
            longest, before = max(longest, now[1]), (now[0], now[1])
    return longest if counts_within else None


def _iteration(line: dict, last: int | None, epoch_length: int | None) -> int | None:
    """Returns the iteration of the training that a line is of; None if there is none.

    Args:
        line: Line of a log.
        last: Iteration of the last line of the training before it.
        epoch_length: Iterations of an epoch, where ``iter`` counts within one.
    """
    step, count, epoch = (_whole(line.get(name)) for name in ('step', 'iter', 'epoch'))
    if 'mode' not in line or step is not None:
        return step
    evaluates = line['mode'] == 'val' and 'loss_val' not in line
    if epoch_length is not None and epoch is not None and count is not None:
        return epoch * epoch_length if line['mode'] == 'val' else (
            max(0, epoch - 1) * epoch_length + count)
    return last if evaluates else count


def _whole(value: object) -> int | None:
    """Returns a count of iterations or epochs; None if a value is none."""
    return value if type(value) is int and 0 <= value <= _MOST_ITERATIONS else None


def _numbers(line: dict) -> Row:
    """Selects the numbers of a line; null, as strict JSON writes NaN, is NaN."""
    return {name: float('nan') if value is None else float(value) for name, value in line.items()
            if value is None or type(value) is float
            or type(value) is int and abs(value) <= _MOST_ITERATIONS}


def _assembled(training: dict[int, Row], rates: dict[int, Row], evaluations: dict[int, Row],
               classes: tuple[str, ...]) -> TrainingLog:
    columns = _columns(training)
    metrics = {}
    for name in dict.fromkeys(name for row in evaluations.values() for name in row):
        when = sorted(iteration for iteration, row in evaluations.items() if name in row)
        metrics[name] = Curve(np.array(when, np.int64),
                              np.array([evaluations[iteration][name] for iteration in when]))
    return TrainingLog(
        iterations=np.array(sorted(training), np.int64),
        losses={name: values for name, values in columns.items() if LOSS in name},
        learning_rates=_columns(rates),
        figures={name: values for name, values in columns.items() if LOSS not in name},
        metrics=metrics, classes=classes)


def _columns(rows: dict[int, Row]) -> dict[str, np.ndarray]:
    """Returns name -> values (T,) in the order of the iterations, NaN where a row has none."""
    order = sorted(rows)
    return {name: np.array([rows[iteration].get(name, np.nan) for iteration in order])
            for name in dict.fromkeys(name for row in rows.values() for name in row)}
