"""What training and testing share when they build a segmentor."""
from contextlib import AbstractContextManager, nullcontext

import torch
from mmcv import Config
from torch import nn

from ..distributed.precision import COMPUTE_DTYPES
from ..errors import InputError
from ..optim import low_memory
from .hooks import ToBFloat16Hook, ToFloat16Hook


def build_on_meta(cfg: Config) -> AbstractContextManager:
    """A context in which a model costs neither memory nor time, until a checkpoint fills it.

    For the backbones of this package; others may compute buffers when they are built.
    """
    known = cfg.model.backbone.type == 'InternViT6B'
    return torch.device('meta') if known else nullcontext()


def init_heads(model: nn.Module) -> None:
    """Initialises what a segmentor has beside its backbone, and other backbones than ours."""
    for name, child in model.named_children():
        # mmcv would start by taking the mean of each of 5.9 billion parameters, for its log.
        if name != 'backbone' or not hasattr(child, 'freeze_vit'):
            child.init_weights()


def compute_dtype(cfg: Config, model: nn.Module) -> torch.dtype | None:
    """What the backbone computes in; None for a backbone that no policy is asked for.

    ``precision='bf16' | 'fp16' | 'fp32'`` in the config decides, else the precision hook among
    ``custom_hooks``, else what the backbone was built in.

    Raises:
        InputError: If ``precision`` is none of the three.
    """
    name = cfg.get('precision')
    if name is not None:
        if name not in COMPUTE_DTYPES:
            raise InputError(f'precision={name!r}: expected one of {", ".join(COMPUTE_DTYPES)}')
        return COMPUTE_DTYPES[name]
    for hook in (ToBFloat16Hook, ToFloat16Hook):
        if any(h['type'] == hook.__name__ for h in cfg.get('custom_hooks') or []):
            return hook.dtype
    return getattr(model.backbone, 'dtype', None)


def master_dtype(cfg: Config) -> torch.dtype:
    """What the backbone's trained weights are stored in: float32, but for the low-memory optimizer.

    Raises:
        InputError: If that is asked for with another precision than bfloat16.
    """
    if (cfg.get('optimizer') or {}).get('type') != low_memory.NAME:
        return torch.float32
    if cfg.get('precision', 'bf16') != 'bf16':
        raise InputError(f'precision={cfg.precision!r} and optimizer.type={low_memory.NAME!r}, '
                         'which trains bfloat16 weights: leave one of them out')
    return torch.bfloat16


def check_finite(model: nn.Module) -> None:
    """Reads every weight.

    Raises:
        InputError: Naming the first that holds NaN or infinity.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f'--check-finite: {name} holds NaN or infinity: the file it comes '
                             'from is damaged, or its training diverged')
