"""Deterministic kernels on a GPU, with which a resumed run repeats the interrupted one bit by bit.

On a GPU an operation may add up its parts in the order in which threads finish. PyTorch has two
modes that avoid this: where an operation has no deterministic kernel, one warns and the other, the
strict one, raises. Only the strict one makes the backward pass of attention deterministic, with
PyTorch's flash kernel; it refuses cuDNN's, in the forward pass too. So it is used where attention
is differentiated. Where the backbone is frozen the other one is, and cuDNN's kernel stays.

On the CPU nothing has to be set: every operation here is deterministic.
"""
import os

import torch
import torch.utils.deterministic
from mmseg.utils import get_root_logger
from torch import nn

from ..distributed.precision import heads
from ..models.backbone_options import traits_of
from ..models.decode_heads.decode_head import DecodeHead
from ..models.decode_heads.head_loss import in_strips
from ..models.decode_heads.upsampled_loss import UpsampledLoss

NO_KERNEL = 'does not have a deterministic implementation'  # words of PyTorch's error


def use_deterministic_kernels(device: str) -> None:
    """Lets the libraries of this process use deterministic kernels where they have any.

    Called before the process group is joined: nccl reads then whether it may reduce in switches
    (NVLS), in an order that varies.
    """
    if device != 'cuda':
        return
    os.environ.setdefault('NCCL_NVLS_ENABLE', '0')  # PyTorch sees to it from 2.8 on
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read when cuBLAS starts
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # Nothing here reads such memory. (torch gives this module its properties by another class.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)


def settle_determinism(model: nn.Module) -> None:
    """Chooses the mode for a segmentor that is to be trained, and logs whether a run is exact.

    Does nothing unless :func:`use_deterministic_kernels` was called in this process.

    Args:
        model: Segmentor, not wrapped. With several in a process, the first that is not known to be
            exact decides for all.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return
    unknown = _unknown_parts(model)
    if unknown:
        torch.use_deterministic_algorithms(False)  # Where nothing is exact, nothing is slower.
        get_root_logger().warning(
            '--deterministic: with %s a run is not known to be exact on a GPU; only the kernels of '
            'cuDNN and cuBLAS are deterministic', ', '.join(unknown))
        return
    strict = _differentiates_attention(model.backbone)
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    get_root_logger().info('--deterministic: all kernels of a training step are, %s', (
        'attention uses the flash kernel' if strict else 'the backbone is frozen'))


def _unknown_parts(model: nn.Module) -> list[str]:
    """Returns the names of parts that may use operations without a deterministic kernel."""
    backbone = model.backbone
    # That of a ViT-Adapter reads points by grid_sample, whose backward pass has no such kernel.
    parts = [] if traits_of(backbone).has_frozen_features else [type(backbone).__name__]
    return parts + [type(head).__name__ for head in heads(model)
                    if not (isinstance(head, (DecodeHead, UpsampledLoss)) and in_strips(head))]


def _differentiates_attention(backbone: nn.Module) -> bool:
    return any(parameter.requires_grad for _, parameter in backbone.named_trunk_parameters())
