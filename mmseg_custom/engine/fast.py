"""The line of the log that says what ``engine.fast`` turns on."""
from mmcv import Config
from mmseg.utils import get_root_logger
from torch import nn

from ..distributed.options import FOLLOWING_FAST, Engine
from ..distributed.precision import HEAD_DTYPES
from .build import head_dtype


def log_fast(cfg: Config, engine: Engine, model: nn.Module, trained: bool = True,
             **others: object) -> None:
    """Logs the values of all options that follow ``engine.fast``, where it is on.

    An option that has no effect in the run is named by a line of its own, with the reason.

    Args:
        cfg: Resolved config.
        engine: Engine of the run.
        model: Module with ``backbone``; everything else in it counts as a head.
        trained: Whether the run has an optimizer and a backward pass.
        **others: Further options that follow ``engine.fast`` in this run.
    """
    if not engine.fast:
        return
    values: dict[str, object] = {
        f'engine.{name}': engine.is_on(name) for name in FOLLOWING_FAST
        if trained or name != 'fused_optimizer'}
    if trained and engine.checkpoint_blocks is not None:
        values['engine.checkpoint_blocks'] = engine.checkpoint_blocks
    values['head_precision'] = next(
        name for name, dtype in HEAD_DTYPES.items() if dtype == head_dtype(cfg, model))
    get_root_logger().info('engine.fast: %s', ', '.join(
        f'{name}={value!r}' for name, value in {**values, **others}.items()))
