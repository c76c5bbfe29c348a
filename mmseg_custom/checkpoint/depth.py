"""Files with more blocks than the network: the blocks behind its last one are left aside.

InternViT-6B-448px-V1-0 holds 48 blocks, of which its published recipes build the first 45.
"""
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from ..errors import InputError, some_of
from .keys import NATIVE, Architecture, block_of, describe_mismatch
from .lazy import LazyStateDict


def count_blocks(names: Iterable[str]) -> int:
    """Counts the blocks that native names belong to."""
    return len({block_of(name) for name in names} - {None})


def surplus_blocks(weights: LazyStateDict, targets: Mapping[str, Tensor]) -> list[str]:
    """Finds the blocks of a file that are behind the last one of a backbone.

    Args:
        weights: Weights of the file, by native names.
        targets: State dict of the backbone.

    Returns:
        Names of the blocks; none where the file holds no more, or where more than the depth
        differs, which :func:`.load.check_fit` explains.

    Raises:
        InputError: If what is left over is not whole blocks at the end, naming the tensors.
    """
    depth, total = count_blocks(targets), count_blocks(weights)
    if not depth < total or NATIVE.anchor not in targets:
        return []
    here, there = (Architecture.of({name: tuple(tensor.shape) for name, tensor in tensors.items()})
                   for tensors in (targets, weights))
    if here.differences(there).keys() != {'depth'}:
        return []
    _check_whole(weights, range(depth, total))
    return [f'blocks.{i}' for i in range(depth, total)]


def left_aside_line(weights: LazyStateDict, surplus: Sequence[str]) -> str:
    """Says in a line which blocks of a file, those of :func:`surplus_blocks`, are left aside."""
    total = count_blocks(weights)
    taken = total - len(surplus)
    which = f'{surplus[0]} to {surplus[-1]} are' if len(surplus) > 1 else f'{surplus[0]} is'
    return (f'{weights.path} holds {total} blocks, of which the network has the first {taken} '
            f'(model.backbone.depth={taken}): {which} left aside')


def _check_whole(weights: LazyStateDict, blocks: range) -> None:
    """Refuses blocks at the end of a file that are not like its first one."""
    shapes = {name.removeprefix('blocks.0.'): tensor.shape for name, tensor in weights.items()
              if block_of(name) == 0}
    wanted = {f'blocks.{i}.{rest}': shape for i in blocks for rest, shape in shapes.items()}
    found = {name: tensor.shape for name, tensor in weights.items()
             if (block_of(name) or 0) >= blocks.start}
    wrong = describe_mismatch(wanted.keys() - found.keys(), found.keys() - wanted.keys())
    others = [name for name in found if name in wanted and found[name] != wanted[name]]
    if others:
        wrong = '; '.join(filter(None, [wrong, f'of another shape: {some_of(others)}']))
    if wrong:
        raise InputError(f'{weights.path} holds {blocks.stop} blocks, the model has {blocks.start} '
                         '(model.backbone.depth): blocks at the end are left aside where they are '
                         f'whole, but these are not: {wrong}')
