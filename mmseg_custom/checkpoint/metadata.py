"""Content of a checkpoint: trained tensors, and metadata as plain values."""
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..layers.lora import native_name
from ..layers.quantized_linear import weight_of
from . import provenance
from .keys import BACKBONE


def trained_state_dict(model: nn.Module) -> tuple[dict, dict | None]:
    """Returns the tensors that a checkpoint must hold, and the record of the others' file.

    Frozen parameters of the backbone that were loaded from a file are left to that file. Without
    one (random weights, or weights of another checkpoint) everything is kept.

    Returns:
        (state dict, ``meta['backbone']``); the latter is None if nothing was left out.
    """
    state_dict = model.state_dict()
    source = provenance.weights_source_of(getattr(model, 'backbone', None))
    if source is None:
        return state_dict, None
    frozen = {native_name(name) for name, p in model.backbone.named_parameters()
              if not p.requires_grad}
    frozen.intersection_update(source.names)
    if not frozen:
        return state_dict, None
    trained = {name: tensor for name, tensor in state_dict.items()
               if weight_of(name.removeprefix(BACKBONE)) not in frozen}
    return trained, provenance.record(model.backbone, source)


def own_records(model: nn.Module) -> dict[str, dict]:
    """Returns what else a checkpoint says of a model's backbone: 8 bits, and adapters."""
    backbone = getattr(model, 'backbone', None)
    found = dict(frozen_dtype=getattr(backbone, 'frozen_record', None),
                 adapt=getattr(backbone, 'adapt_record', None))
    return {name: record for name, record in found.items() if record}


def plain(value: Any) -> Any:
    """Converts metadata to plain values, which are read without running code.

    Tensors and arrays stay (arrays as tensors); anything else that is not a plain value becomes its
    string.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        items = [plain(item) for item in value]
        return tuple(items) if type(value) is tuple else items
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value) if value.dtype.kind in 'biufc' else plain(value.tolist())
    if value is None or type(value) in (bool, int, float, complex, str, bytes) or isinstance(
            value, torch.Tensor):
        return value
    return str(value)
