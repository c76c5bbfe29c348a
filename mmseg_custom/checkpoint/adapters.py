"""Adapters as tensors: found in a checkpoint, and merged into the weights that they are for.

    LoRA    W' = W + alpha / r * B A
    DoRA    W' = m * (W + alpha / r * B A) / |W + alpha / r * B A|, norms of the rows

Merged weights are float32: bfloat16 has 8 significant bits, and would round away much of a small
B A beside W (see :class:`RoundingLoss`). Layers are merged one by one, as they are read.

I inputs, O outputs, r rank.
"""
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..layers.lora import NAME, is_adapter
from ..layers.quantized_linear import (
    ROWS_AT_ONCE,
    SCALE,
    STORED,
    QuantizedLinear,
    dequantize,
    weight_of,
)
from .lazy import FLOATS, LazyStateDict, LazyTensor, compute

A, B, NORMS = (f'.lora_{part}.{NAME}.weight' for part in ('A', 'B', 'magnitude_vector'))


@dataclass(frozen=True)
class Adapter:
    """Adapter of a linear layer.

    Attributes:
        a: A (r, I).
        b: B (O, r).
        factor: alpha / r.
        norms: m (O,) of DoRA, NaN for rows that keep their own norm; None without DoRA.
    """
    a: LazyTensor
    b: LazyTensor
    factor: float
    norms: LazyTensor | None = None

    @property
    def rank(self) -> int:
        """Rank r."""
        return self.a.shape[0]

    def merge_into(self, weight: Tensor) -> Tensor:
        """Returns merged weights (O, I) in float32; the given ones are unchanged."""
        merged = weight.to(torch.float32, copy=True)
        merged.addmm_(self.b.read().float(), self.a.read().float(), alpha=self.factor)
        if self.norms is not None:
            norms, own = self.norms.read().float(), torch.linalg.vector_norm(merged, dim=1)
            merged.mul_(torch.where(norms.isnan(), 1, norms / own)[:, None])
        return merged


class RoundingLoss:
    """What rounding merged weights to bfloat16 would lose of what adapters change.

    Attributes:
        lost: Sum of squares of what rounding changes.
        changed: Sum of squares of what the adapters change.
    """

    def __init__(self):
        self.lost = self.changed = 0.0

    def add(self, weight: Tensor, merged: Tensor) -> None:
        """Counts a layer, a strip of rows at a time."""
        for start in range(0, len(weight), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            self.changed += _squared_distance(weight[rows], merged[rows])
            self.lost += _squared_distance(merged[rows].bfloat16(), merged[rows])

    @property
    def share(self) -> float | None:
        """Root of the ratio of the two sums; None if nothing changes."""
        return (self.lost / self.changed) ** 0.5 if self.changed else None


def _squared_distance(given: Tensor, exact: Tensor) -> float:
    return float(torch.linalg.vector_norm(given.float() - exact)) ** 2


def adapters_in(weights: Mapping[str, LazyTensor], factor: float) -> dict[str, Adapter]:
    """Returns the adapters of a checkpoint by the names of their layers, with any prefix.

    Args:
        weights: Weights of the checkpoint.
        factor: alpha / r of its run.
    """
    layers = [name.removesuffix(A) for name in weights if name.endswith(A)]
    return {layer: Adapter(weights[layer + A], weights[layer + B], factor,
                           weights.get(layer + NORMS)) for layer in layers if layer + B in weights}


def merged_weights(weights: LazyStateDict, adapters: Mapping[str, Adapter],
                   frozen_dtype: str | None = None, loss: RoundingLoss | None = None
                   ) -> LazyStateDict:
    """Merges adapters into their layers.

    Args:
        weights: Weights of a backbone, or of a segmentor, with or without the adapters themselves.
        adapters: Adapters by the names of their layers.
        frozen_dtype: 'int8' or 'fp8' if the run computed with linear layers of blocks that were
            rounded to 8 bits: the merged weights are those, exactly, in float32.
        loss: Object that counts what rounding to bfloat16 would lose.

    Returns:
        Weights in the order that they had, without adapters and without scales of 8 bits.
    """
    merged = weights.copy()
    merged.clear()
    for name, tensor in weights.items():
        if is_adapter(name) or weight_of(name) != name:
            continue
        if name + SCALE in weights:
            tensor = _dequantized(tensor, weights[name + SCALE])
        elif frozen_dtype is not None and _is_rounded(name, tensor):
            tensor = _rounded(tensor, frozen_dtype)
        adapter = adapters.get(name.removesuffix('.weight'))
        merged[name] = tensor if adapter is None else _merged(tensor, adapter, loss)
    return merged


def _merged(tensor: LazyTensor, adapter: Adapter, loss: RoundingLoss | None) -> LazyTensor:
    def merge(weight: Tensor) -> Tensor:
        merged = adapter.merge_into(weight)
        if loss is not None:
            loss.add(weight, merged)
        return merged

    return compute(merge, [tensor], tensor.shape, torch.float32)


def _is_rounded(name: str, tensor: LazyTensor) -> bool:
    """Whether a tensor is the weight of a linear layer in a block."""
    return (re.search(r'(^|\.)blocks\.[0-9]+\..*\.weight$', name) is not None
            and len(tensor.shape) == 2 and tensor.dtype in FLOATS)


def _rounded(tensor: LazyTensor, kind: str) -> LazyTensor:
    """Returns weights as a layer of 8 bits has them."""
    def through_8_bits(weight: Tensor) -> Tensor:
        with torch.device('meta'):
            layer = QuantizedLinear(weight.shape[1], weight.shape[0], False, kind)
        layer.store(weight)
        return layer.dequantized(torch.float32)

    return compute(through_8_bits, [tensor], tensor.shape, torch.float32)


def _dequantized(tensor: LazyTensor, scale: LazyTensor) -> LazyTensor:
    """Returns weights that a checkpoint holds in 8 bits."""
    kind = next(kind for kind, stored in STORED.items() if stored == tensor.dtype)
    return compute(lambda values, scales: dequantize(values, scales, kind, torch.float32),
                   [tensor, scale], tensor.shape, torch.float32)
