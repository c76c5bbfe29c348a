"""Building a segmentor whose weights a checkpoint brings."""
from contextlib import AbstractContextManager, nullcontext

import torch
from mmcv import Config
from torch import nn

from ..checkpoint.files import safe_load
from ..checkpoint.segmentor import entry_of
from ..errors import InputError


def is_classic(checkpoint: str) -> bool:
    """Whether a checkpoint holds all weights, those of a frozen backbone too."""
    return entry_of(safe_load(checkpoint)) is None


def build_on_meta(cfg: Config) -> AbstractContextManager:
    """A context in which a model costs neither memory nor time, until a checkpoint fills it.

    For the backbones of this package; others may compute buffers when they are built.
    """
    known = cfg.model.backbone.type == 'InternViT6B'
    return torch.device('meta') if known else nullcontext()


def check_finite(model: nn.Module) -> None:
    """Reads every weight.

    Raises:
        InputError: Naming the first that holds NaN or infinity.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f'--check-finite: {name} holds NaN or infinity: the file it comes '
                             'from is damaged, or its training diverged')
