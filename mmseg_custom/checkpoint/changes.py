"""What a backbone changes in the weights of its file, by itself: ViT-Adapter's other patches.

    patch_size   side of a patch in pixels that the patch embedding is resampled to
    left_out     names of tensors that the backbone has no use for

A backbone has them as ``weights_changes``, and ``meta['backbone']`` of a checkpoint that leaves its
frozen weights to their file.
"""
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..layers.resize import resize_bicubic
from .lazy import LazyStateDict, compute

PATCHES = 'patch_embed.proj.weight'


def changed(weights: LazyStateDict, changes: Mapping[str, Any]) -> LazyStateDict:
    """Returns the weights of a network with some changes.

    Args:
        weights: Weights under native names.
        changes: See above; without one, nothing is changed.
    """
    weights = weights.copy()
    for name in changes.get('left_out', ()):
        weights.pop(name, None)
    patch, found = changes.get('patch_size'), weights.get(PATCHES)
    if patch is not None and found is not None and found.shape[-2:] != (patch, patch):
        weights[PATCHES] = compute(lambda kernels: resample_patches(kernels, patch), [found],
                                   (*found.shape[:2], patch, patch), torch.float32)
    return weights


def resample_patches(kernels: Tensor, patch_size: int) -> Tensor:
    """Resamples a patch embedding (D, channels, p, p) to patches of another side, in float32.

    Bicubic, ``align_corners=False``, without antialiasing, as the original.
    """
    return resize_bicubic(kernels.float(), (patch_size, patch_size))


def describe_changes(weights: LazyStateDict, patch_size: int, tokens: int) -> str:
    """Says which embeddings of a file are resampled, for the log; '' if none is.

    Args:
        weights: Weights of the file.
        patch_size: Side of the network's patches in pixels.
        tokens: 1 + N tokens of its position embedding.
    """
    patch = weights[PATCHES].shape[-1]
    side, to = (round((count - 1) ** 0.5) for count in (weights['pos_embed'].shape[1], tokens))
    parts = [f'{what} from {old} to {new}' for what, old, new in (
        ('patch embedding', f'{patch}x{patch}', f'{patch_size}x{patch_size} pixels'),
        ('position embedding', f'{side}x{side}', f'{to}x{to} patches'))
        if not new.startswith(f'{old} ')]
    return ', '.join(parts)
