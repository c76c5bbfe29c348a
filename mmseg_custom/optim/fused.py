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


def with_fused(options: dict[str, Any], asked: bool | None, fast: bool,
               device: str) -> dict[str, Any]:
    """Returns ``optimizer`` of a config with ``fused`` set, where that is asked for and possible.

    What the config itself says, ``fused`` or ``foreach``, stays.

    Args:
        options: ``optimizer=dict(type=..., ...)``.
        asked: ``engine.fused_optimizer``.
        fast: ``engine.fast``, which decides where ``asked`` is None.
        device: 'cuda' or 'cpu'.

    Raises:
        InputError: If ``asked`` is True and the optimizer has no fused step.
    """
    wanted = fast if asked is None else asked
    if not wanted or options.get('fused') is not None or options.get('foreach'):
        return options
    if OPTIMIZERS.get(options['type']) in FUSED[device]:
        return type(options)({**options, 'fused': True})
    if asked:
        names = ', '.join(kind.__name__ for kind in FUSED[device])
        raise InputError(f'engine.fused_optimizer=True: optimizer.type={options["type"]!r} has no '
                         f'fused step on {device}: expected one of {names}; or leave '
                         'engine.fused_optimizer out')
    get_root_logger().info('optimizer: %s has no fused step, which engine.fast asks for',
                           options['type'])
    return options
