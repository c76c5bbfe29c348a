"""The kernel of deformable attention: a compiled one where there is one, else plain PyTorch.

Shapes are those of :mod:`..layers.deformable_attention`.
"""
import logging
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ..layers.deformable_attention import Grid, Kernel, read_points

EXTENSION = 'MultiScaleDeformableAttention'  # of Deformable DETR, which the original builds


@cache
def select_kernel() -> Kernel:
    """Chooses the kernel, once for a process, and logs the choice with its reason.

    The rule depends on what is installed, so that all processes of a run, and the run that is
    resumed, choose the same: mmcv's where mmcv was built with its operators for CUDA, then that of
    Deformable DETR, then plain PyTorch. All of them add up gradients in an order that varies.
    """
    kernel: Kernel = read_points
    name = "PyTorch's grid_sample"
    if not torch.cuda.is_available():
        reason = 'no GPU'
    elif _mmcv_is_compiled():
        kernel, name, reason = _on_gpu(_of_mmcv()), "mmcv's CUDA kernel", 'mmcv was built with it'
    elif (found := _extension()) is not None:
        kernel, name, reason = _on_gpu(_of_extension(found)), f'{EXTENSION}', 'installed'
    else:
        reason = 'no compiled one found'
    logging.getLogger('mmseg.details').info('deformable attention kernel: %s (%s)', name, reason)
    return kernel


def _on_gpu(compiled: Kernel) -> Kernel:
    """Returns a kernel that runs a compiled one on the GPU, and plain PyTorch elsewhere."""

    def kernel(values: Tensor, grids: Sequence[Grid], locations: Tensor, weights: Tensor) -> Tensor:
        read = compiled if values.is_cuda else read_points
        return read(values, grids, locations, weights)

    return kernel


def _mmcv_is_compiled() -> bool:
    """Returns whether mmcv has operators for CUDA, and not the stand-in of ``compat``."""
    try:
        extension = import_module('mmcv._ext')
        return extension.get_compiling_cuda_version() not in ('n/a', 'not available')
    except Exception:  # one that was built for another PyTorch raises anything
        return False


def _extension() -> ModuleType | None:
    try:
        return import_module(EXTENSION)
    except Exception as error:  # a build for another PyTorch raises OSError and others
        if not isinstance(error, ModuleNotFoundError):
            logging.getLogger('mmseg').warning('%s is installed but failed to load: %r', EXTENSION,
                                               error)
        return None


def _of_mmcv() -> Kernel:
    """Returns a kernel on mmcv's function."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    def kernel(values: Tensor, grids: Sequence[Grid], locations: Tensor, weights: Tensor) -> Tensor:
        return MultiScaleDeformableAttnFunction.apply(
            values.contiguous(), *_on_device(tuple(grids), values.device), locations.contiguous(),
            weights.contiguous(), len(values))

    return kernel


def _of_extension(extension: ModuleType) -> Kernel:
    """Returns a kernel on the two functions of Deformable DETR's extension."""

    class Read(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            ctx.save_for_backward(*inputs)
            return extension.ms_deform_attn_forward(*inputs, len(inputs[0]))

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> tuple:
            inputs = ctx.saved_tensors
            values, locations, weights = extension.ms_deform_attn_backward(
                *inputs, gradient.contiguous(), len(inputs[0]))
            return values, None, None, locations, weights

    def kernel(values: Tensor, grids: Sequence[Grid], locations: Tensor, weights: Tensor) -> Tensor:
        return Read.apply(values.contiguous(), *_on_device(tuple(grids), values.device),
                          locations.contiguous(), weights.contiguous())

    return kernel


@lru_cache(maxsize=64)
def _on_device(grids: tuple[Grid, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns grids (L, 2) and the positions (L,) of their first cells, copied to a GPU once."""
    sizes = [h * w for h, w in grids]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return torch.tensor(grids, device=device), torch.tensor(starts, device=device)
