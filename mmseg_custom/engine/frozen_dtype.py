"""Frozen backbones with weights of 8 bits: the error of their feature maps, measured and recorded.

A head that was trained on such maps belongs to them. Its checkpoints say so, with the error, in
``meta['frozen_dtype']``; so do the pages, results and reports of its runs.

    dtype         'int8' or 'fp8'
    products      'weights' that were rounded, or 'weights and tokens' where a GPU multiplies 8 bits
    map_errors    {index of the block: relative error of its feature map}; missing where the
                  original weights are in no file
"""
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmcv.runner import get_dist_info
from mmseg.utils import get_root_logger
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint.backbone_file import open_backbone_weights
from ..checkpoint.lazy import LazyTensor
from ..checkpoint.provenance import weights_source_of
from ..evaluation.results import UNPUBLISHED
from ..layers.lora import native_name
from ..layers.quantized_linear import QuantizedLinear, quantized_layers
from .randomness import SeededSamples
from .run import Run


def measure_frozen_dtype(run: Run, backbone: nn.Module) -> None:
    """Measures what weights of 8 bits change in the feature maps, for the run's checkpoints.

    The first crop of the training data goes through the backbone twice, the second time with the
    weights of its file, which are read layer by layer. That takes as long as a training step or
    two. Does nothing for other backbones, and on ranks that write no checkpoints.

    Args:
        run: Run with training data.
        backbone: Backbone with its weights, in its dtypes, before its blocks are compiled; it moves
            to the device of the run.
    """
    record = getattr(backbone, 'frozen_record', None)
    if record is None or get_dist_info()[0] != 0:
        return
    backbone.to(run.device)
    rounds_tokens = any(layer.rounds_tokens for layer in quantized_layers(backbone))
    record.update(products='weights and tokens' if rounds_tokens else 'weights')
    if weights_source_of(backbone) is not None:
        crop = SeededSamples(run.data['train'], run.seed)[0, 0]['img']
        crop = getattr(crop, 'data', crop)
        errors = map_errors(backbone, crop[None].to(run.device))
        record.update(map_errors=dict(zip(backbone.out_indices, errors)))
    get_root_logger().warning('model.backbone.frozen_dtype: %s', describe_record(record))


@torch.no_grad()
def map_errors(backbone: nn.Module, images: Tensor) -> list[float]:
    """Returns the relative error of each feature map that 8 bits make: |found - exact| / |exact|.

    Adapters and trained blocks are the same in both, and in evaluation mode.

    Args:
        backbone: Backbone with weights of 8 bits from a file.
        images: (B, 3, H, W), normalised.
    """
    with _evaluation_mode(backbone):
        found = backbone(images, before_pyramid=True)
        with _original_weights(backbone):
            exact = backbone(images, before_pyramid=True)
    return [float((x - y).norm() / y.norm()) for x, y in zip(found, exact)]


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Turns off dropout and drop path, which trained parts of a backbone have."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


@contextmanager
def _original_weights(backbone: nn.Module) -> Iterator[None]:
    """Lets layers of 8 bits compute with the weights of the file instead, one layer at a time."""
    source = weights_source_of(backbone)
    assert source is not None
    weights = open_backbone_weights(source.path)
    layers = {name: layer for name, layer in backbone.named_modules()
              if isinstance(layer, QuantizedLinear)}
    for name, layer in layers.items():
        weight = weights[native_name(f'{name}.weight')]
        multiply = partial(_multiply, layer, weight, backbone.dtype)
        layer.forward = multiply  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward


def _multiply(layer: QuantizedLinear, weight: LazyTensor, dtype: torch.dtype, x: Tensor) -> Tensor:
    """(..., I) -> (..., O), with a weight that is rounded as those of other layers are."""
    here = weight.read().to(dtype).to(x.device, x.dtype)
    weight.release()
    return F.linear(x, here, None if layer.bias is None else layer.bias.to(x.dtype))


def describe_record(record: Mapping[str, Any]) -> str:
    """Says in a line what a run with weights of 8 bits is, and that it is not a published one."""
    errors = record.get('map_errors')
    measured = '' if not errors else (
        '; relative error of the feature maps, first training crop: '
        + ', '.join(f'block {index} {error:.2%}' for index, error in errors.items()))
    products = f', rounds {record["products"]}' if 'products' in record else ''
    return (f'{record["dtype"]}{products}{measured}; {UNPUBLISHED}, '
            'which are of bfloat16')


def check_head_fits(model: nn.Module, meta: Mapping[str, Any]) -> None:
    """Warns of weights that are rounded otherwise than those that a checkpoint was trained on.

    Its head gets other feature maps then. Merged adapters are rounded with their layers.
    """
    trained, here = (found and found.get('dtype') for found in (
        meta.get('frozen_dtype'), getattr(getattr(model, 'backbone', None), 'frozen_record', None)))
    if here and meta.get('merged'):
        get_root_logger().warning(
            'model.backbone.frozen_dtype=%r rounds weights that adapters were merged into, and so '
            'what the adapters change: leave frozen_dtype out', here)
    elif trained != here:
        get_root_logger().warning(
            'model.backbone.frozen_dtype is %r, the checkpoint was trained with %r: its head gets '
            'other feature maps than it was trained on', here, trained)
