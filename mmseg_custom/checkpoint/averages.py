"""Tensors of averaged weights in a checkpoint, under the names that mmcv's EMAHook gives them.

A run with exponential moving averages keeps two tensors for each trained weight. Whoever tests the
checkpoint reads the averages under the names of the weights; a run that is resumed reads the
weights themselves under ``ema_`` and their names with underscores, as mmcv's hook swaps the two
before it saves. (In a run by iterations mmcv's hook never does: see :mod:`..engine.ema`.)
"""
import logging
from collections.abc import Container

from .lazy import LazyStateDict

PREFIX = 'ema_'


def swapped_name(name: str) -> str:
    """Returns the name under which a checkpoint holds the other tensor of a weight."""
    return PREFIX + name.replace('.', '_')


def leave_aside(weights: LazyStateDict, targets: Container[str],
                logger: logging.Logger | None = None) -> None:
    """Removes the second tensors from weights that are to be loaded, with a line in the log.

    Args:
        weights: Weights of a checkpoint; they lose these names.
        targets: Names in the model; one with mmcv's hook has a place for them.
        logger: Logger; default: 'mmseg'.
    """
    names = [name for name in weights if is_second(name) and name not in targets]
    for name in names:
        del weights[name]
    if names:
        (logger or logging.getLogger('mmseg')).info(
            '%s is of a run with EMAHook: its %d tensors ema_*, for resuming, are left aside',
            weights.path, len(names))


def is_second(name: str) -> bool:
    """Returns whether a name is that of a second tensor of a weight."""
    return name.startswith(PREFIX) and '.' not in name
