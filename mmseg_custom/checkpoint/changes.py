"""What a backbone takes of the weights in its file, where that is not all of them as they are.

    left_out     parts of the file that the network does not have: blocks behind its last one
                 (see :mod:`.depth`), the class token of a ViT-Adapter
    patch_size   side of a patch in pixels that the patch embedding is resampled to

:class:`.provenance.WeightsSource` has both, and so does ``meta['backbone']`` of a checkpoint that
leaves its frozen weights to their file.
"""
from collections.abc import Collection

import torch
from torch import Tensor

from ..layers.resize import resize_bicubic
from .keys import is_part
from .lazy import FLOATS, LazyStateDict, compute

PATCHES = 'patch_embed.proj.weight'


def changed(weights: LazyStateDict, left_out: Collection[str] = (),
            patch_size: int | None = None) -> LazyStateDict:
    """Returns the weights of a file as a network takes them.

    Args:
        weights: Weights under native names.
        left_out: Parts that are left out: names, or their beginnings up to a dot.
        patch_size: Side in pixels of the network's patches; None for that of the file.
    """
    weights = weights.copy()
    for name in [name for name in weights if is_part(name, left_out)]:
        del weights[name]
    found = weights.get(PATCHES)
    # What cannot be resampled is left to the checks of whoever loads it.
    if patch_size and found and found.dtype in FLOATS and (
            found.shape[-2] == found.shape[-1] != patch_size):
        weights[PATCHES] = compute(lambda kernels: resample_patches(kernels, patch_size), [found],
                                   (*found.shape[:2], patch_size, patch_size), torch.float32)
    return weights


def resample_patches(kernels: Tensor, patch_size: int) -> Tensor:
    """Resamples a patch embedding (D, channels, p, p) to patches of another side, in float32.

    Bicubic, ``align_corners=False``, without antialiasing, as the original.
    """
    return resize_bicubic(kernels.float(), (patch_size, patch_size))


def describe_resampling(weights: LazyStateDict, patch_size: int, tokens: int) -> str:
    """Says which embeddings of a file are resampled, for the log.

    Args:
        weights: Weights of the file.
        patch_size: Side of the network's patches in pixels.
        tokens: 1 + N tokens of its position embedding.
    """
    found = []
    if (patch := weights[PATCHES].shape[-1]) != patch_size:
        found.append(f'patch embedding from {patch}x{patch} to {patch_size}x{patch_size} pixels')
    if 'pos_embed' in weights and (stored := weights['pos_embed'].shape[1]) != tokens:
        side, to = (round((count - 1) ** 0.5) for count in (stored, tokens))
        found.append(f'position embedding from {side}x{side} to {to}x{to} patches')
    return ', '.join(found) or 'nothing'
