"""Whether an optimizer's step is one fused kernel, as ``engine.fused_optimizer`` says.

torch's fused optimizers read and write each weight and its moments once; otherwise each operation
of the formula is a pass over all of them. The results differ in their last bits.
"""
from typing import Any

from mmcv.runner import OPTIMIZERS
from mmseg.utils import get_root_logger
from torch import optim

from ..errors import InputError

FUSED = dict(cuda=(optim.AdamW, optim.Adam, optim.SGD),
             cpu=(optim.AdamW, optim.Adam, optim.SGD, optim.Adagrad))


def with_fused(options: dict[str, Any], wanted: bool, required: bool,
               device: str) -> dict[str, Any]:
    """Returns ``optimizer`` of a config with ``fused`` set, where that is wanted and possible.

    What the config itself says, ``fused`` or ``foreach``, stays.

    Args:
        options: ``optimizer=dict(type=..., ...)``.
        wanted: Whether ``engine.fused_optimizer`` is on, by itself or by ``engine.fast``.
        required: Whether it is on by itself: an optimizer without a fused step is refused, rather
            than left as it is.
        device: 'cuda' or 'cpu'.

    Raises:
        InputError: If ``required`` is set and the optimizer has no fused step.
    """
    if not wanted or options.get('fused') is not None or options.get('foreach'):
        return options
    if OPTIMIZERS.get(options['type']) in FUSED[device]:
        return type(options)({**options, 'fused': True})
    if required:
        names = ', '.join(kind.__name__ for kind in FUSED[device])
        raise InputError(f'engine.fused_optimizer=True: optimizer.type={options["type"]!r} has no '
                         f'fused step on {device}: expected one of {names}; or leave '
                         'engine.fused_optimizer out')
    get_root_logger().info('engine.fused_optimizer: without effect: optimizer.type=%r has no fused '
                           'step on %s', options['type'], device)
    return options
