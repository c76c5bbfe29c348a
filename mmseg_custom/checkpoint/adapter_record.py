"""``meta['adapt']`` of a checkpoint: what its adapters are, compared with those of a model.

    type       'lora'
    r, alpha   rank, and numerator of the factor alpha / r
    targets    names of the linear layers of a block that have adapters
    blocks     indices of the blocks
    use_dora   whether norms of rows are trained, too

The factor and ``use_dora`` show in no shape, so that a checkpoint without the record is refused.
"""
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..layers.lora import is_adapter
from ..schema import array, choice, integer, number, record, text, validate

KEY = 'model.backbone.adapt'
MERGE = 'python tools/merge_checkpoint.py'
MOST_BLOCKS = 10**6
_NAMES = array(text, 'a list of names', least=1)
_BLOCKS = array(integer(0, MOST_BLOCKS), 'a list of indices', least=1)


def check_record(adapt: Any, path: str) -> None:
    """Checks ``meta['adapt']``; what another program stores there is left alone.

    Args:
        adapt: Value of the entry.
        path: Name of the file.

    Raises:
        InputError: If a value of it is of another kind than expected.
    """
    if not isinstance(adapt, dict) or 'alpha' not in adapt:
        return
    validate(adapt, record(dict(
        type=choice('lora'), r=integer(1), alpha=number(), targets=_NAMES, blocks=_BLOCKS,
        use_dora=_truth_value)), f'{path}: meta.adapt')


def _truth_value(value: Any, place: str) -> None:
    if not isinstance(value, bool):
        integer(0, 1)(value, place)


def recorded_adapters(meta: Mapping, names: Iterable[str], path: str) -> dict[str, Any] | None:
    """Returns the record of the adapters of a checkpoint; None if it holds none.

    Args:
        meta: Metadata of the checkpoint.
        names: Names of its weights.
        path: Name of the file.

    Raises:
        InputError: If there are adapters without a record.
    """
    name = next(filter(is_adapter, names), None)
    if name is None:
        return None
    adapt = meta.get('adapt')
    if not isinstance(adapt, dict) or 'alpha' not in adapt:
        raise InputError(f'{path} holds adapters ({name}) without meta.adapt, which has their '
                         'alpha: give a checkpoint that a run of this package saved')
    return adapt


def refuse_adapters(names: Iterable[str], path: str) -> None:
    """Refuses adapters where the weights of a backbone are expected.

    Raises:
        InputError: Naming the tool that merges them.
    """
    name = next(filter(is_adapter, names), None)
    if name is not None:
        raise InputError(f'{path} holds adapters ({name}), which are no backbone: merge them first '
                         f'({MERGE} {path} merged.pth), and give merged.pth')


def refuse_merged(meta: Mapping[str, Any], path: str) -> None:
    """Refuses to resume a run from a file that its adapters were merged into.

    Raises:
        InputError: If it is one; new adapters would go on in the middle of the training.
    """
    if 'merged' in meta:
        raise InputError(
            f'{path} was merged, and holds neither adapters nor the state of their optimizer: '
            'resume from the checkpoint that it was made of, or start a new run from its weights '
            'with --load-from and another --work-dir')


def compare_adapters(saved: Mapping[str, Any] | None, here: Mapping[str, Any] | None,
                     path: str) -> bool:
    """Compares the adapters of a checkpoint with those of a model.

    Args:
        saved: Record of the checkpoint's, None if it holds none.
        here: Record of the model's, None if it has none.
        path: Name of the file.

    Returns:
        Whether the model has adapters and the checkpoint has none.

    Raises:
        InputError: If the checkpoint has others than the model, or the model has none.
    """
    if saved is None:
        return here is not None
    if here is None:
        raise InputError(
            f'{path} holds adapters, the config has none: set {KEY}={as_option(saved)}, as in its '
            f'training, or merge them into its backbone: {MERGE} {path} merged.pth, and give that')
    differing = [name for name in ('r', 'alpha', 'targets', 'blocks', 'use_dora')
                 if _comparable(name, saved[name]) != _comparable(name, here[name])]
    if differing:
        there, mine = (', '.join(f'{name}={_shown(name, each[name])}' for name in differing)
                       for each in (saved, here))
        raise InputError(f'{path} holds adapters with {there}, the model has {mine}: set '
                         f'{KEY}={as_option(saved)}, as in its training, or give a checkpoint of '
                         'this config')
    return False


def as_option(saved: Mapping[str, Any]) -> str:
    """Returns the option of a config by which a model has the adapters of a record."""
    dora = ', use_dora=True' if saved['use_dora'] else ''
    return (f"dict(type='lora', r={saved['r']}, alpha={saved['alpha']:g}, "
            f"targets={list(saved['targets'])}, blocks={_shown('blocks', saved['blocks'])}{dora})")


def _comparable(name: str, value: Any) -> Any:
    if name == 'targets':  # 'attn.qkv' is 'qkv'
        return {target.rpartition('.')[2] for target in value}
    return set(value) if name == 'blocks' else value


def _shown(name: str, value: Any) -> str:
    if name == 'blocks':
        return _as_range(sorted(value))
    return f'{value:g}' if name == 'alpha' else repr(list(value) if name == 'targets' else value)


def _as_range(blocks: Sequence[int]) -> str:
    """Returns block indices as Python has them, many in a row as a range."""
    first, last = blocks[0], blocks[-1]
    if len(blocks) < 4 or last - first + 1 != len(blocks):
        return repr(list(blocks))
    return f'list(range({first}, {last + 1}))' if first else f'list(range({last + 1}))'
