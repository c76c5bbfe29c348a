"""Options of a backbone that do not fit each other: refused before anything is built."""
from collections.abc import Sequence
from itertools import pairwise

from ...errors import InputError
from ...layers.quantized_linear import DTYPES
from ..tuning import FULL, KEY, LAST_BLOCKS, Tuning

ADAPTER_STRIDE = 16  # pixels of a cell on the third of the four levels


def check_out_indices(out_indices: Sequence[int], depth: int, with_fpn: bool) -> None:
    """Refuses blocks that there are not, and a pyramid of another number of them than four.

    Raises:
        InputError: Naming ``out_indices``.
    """
    if not out_indices or list(out_indices) != sorted(set(out_indices)) or not (
            0 <= out_indices[0] and out_indices[-1] < depth):
        raise InputError(f'out_indices {list(out_indices)}: expected ascending block numbers '
                         f'between 0 and depth - 1 = {depth - 1}')
    if with_fpn and len(out_indices) != 4:
        raise InputError(f'out_indices {list(out_indices)}: with_fpn=True makes a pyramid of '
                         f'exactly 4 feature maps, not {len(out_indices)}')


def check_frozen_dtype(frozen_dtype: str | None, tuning: Tuning, read: int) -> None:
    """Refuses a format that is unknown, or a network of which no block is frozen.

    Args:
        frozen_dtype: Option of the backbone.
        tuning: What is trained of it.
        read: Number of its blocks that are read.

    Raises:
        InputError: Naming ``frozen_dtype``.
    """
    if frozen_dtype is None:
        return
    if frozen_dtype not in DTYPES:
        raise InputError(f'model.backbone.frozen_dtype={frozen_dtype!r}: expected one of '
                         f'{", ".join(map(repr, DTYPES))}, or None')
    if tuning.kind == LAST_BLOCKS and len(tuning.blocks) == read:
        raise InputError(f'model.backbone.frozen_dtype={frozen_dtype!r} with train_last={read}, '
                         'which trains all blocks that are read: weights of 8 bits are not '
                         'trained: train fewer blocks, or leave frozen_dtype out')
    if tuning.kind == FULL:
        raise InputError(f'model.backbone.frozen_dtype={frozen_dtype!r} with freeze_vit=False: '
                         'weights of 8 bits are not trained: set model.backbone.freeze_vit=True, '
                         'adapt or train_last, or leave frozen_dtype out')


def check_sizes(embed_dim: int, num_heads: int, depth: int, img_size: int, patch_size: int,
                kernels: int) -> None:
    """Refuses sizes that do not fit each other.

    Raises:
        InputError: Naming the option.
    """
    if embed_dim % num_heads:
        near = [n for n in range(1, embed_dim + 1) if embed_dim % n == 0]
        near = sorted(near, key=lambda n: abs(n - num_heads))[:2]
        raise InputError(f'num_heads {num_heads}: expected a divisor of embed_dim {embed_dim}, '
                         f'e.g. {" or ".join(map(str, sorted(near)))}')
    if img_size < patch_size:
        raise InputError(f'img_size {img_size}: expected patch_size {patch_size} or more pixels')
    if kernels != depth:
        raise InputError(f'use_flash_attn has {kernels} entries: expected one for each of the '
                         f'{depth} blocks, or True or False')


def check_adapter(depth: int, patch_size: int, embed_dim: int, out_indices: Sequence[int],
                  interaction_indexes: Sequence[Sequence[int]] | None, deform_num_heads: int,
                  deform_ratio: float, freeze_vit: bool, with_fpn: bool) -> None:
    """Refuses options of a ViT-Adapter that do not fit each other.

    Raises:
        InputError: Naming the option.
    """
    if not freeze_vit:
        raise InputError(f'{KEY}.freeze_vit={freeze_vit!r}: a ViT-Adapter keeps the vision '
                         'transformer frozen, as published; set it to True, or train an '
                         'InternViT6B')
    if with_fpn:
        raise InputError(f'{KEY}.with_fpn={with_fpn!r}: the adapter makes the four feature maps '
                         'itself; leave it out')
    if patch_size != ADAPTER_STRIDE:
        raise InputError(f'{KEY}.patch_size={patch_size}: the adapter meets the tokens at a stride '
                         f'of {ADAPTER_STRIDE} pixels: expected {ADAPTER_STRIDE}; the patch '
                         'embedding of a file with other patches is resampled')
    if list(out_indices) not in ([0, 1, 2, 3], [1, 2, 3]):
        raise InputError(f'{KEY}.out_indices={list(out_indices)}: these are levels of the adapter, '
                         'not blocks: expected [0, 1, 2, 3], the strides 4, 8, 16 and 32, or '
                         '[1, 2, 3], without the first')
    _check_interactions(interaction_indexes, depth)
    width = int(embed_dim * deform_ratio)
    if embed_dim % deform_num_heads or width % deform_num_heads or not width:
        raise InputError(f'{KEY}.deform_num_heads={deform_num_heads}: expected a divisor of '
                         f'embed_dim {embed_dim} and of deform_ratio x embed_dim = {width}')


def _check_interactions(indexes: Sequence[Sequence[int]] | None, depth: int) -> None:
    """Refuses stretches of blocks that are not all blocks, in their order."""
    cuts = [round(depth * i / 4) for i in range(5)]
    example = [[first, after - 1] for first, after in pairwise(cuts) if after > first]
    expected = (f'expected the first and the last block of each stretch, from 0 to depth - 1 = '
                f'{depth - 1} without a gap, e.g. {example}')
    following = 0
    for stretch in indexes or ():
        if len(stretch) < 1 or stretch[0] != following or stretch[-1] < stretch[0]:
            break
        following = stretch[-1] + 1
    else:
        if following == depth:
            return
    raise InputError(f'{KEY}.interaction_indexes={indexes and [*map(list, indexes)]}: {expected}')
