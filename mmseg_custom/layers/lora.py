"""Low-rank adapters of linear layers, made by the library peft.

    y = W x + b + alpha / r * B A dropout(x)

Hu et al., "LoRA", 2021. W and b are frozen; B starts at zero, so that nothing changes at first.
With DoRA (Liu et al., 2024) the rows of W + alpha / r * B A are scaled to trained norms, too.

peft puts a layer of its own around each linear one, which becomes its ``base_layer``. State dicts,
and so checkpoints, have the names of the layer without adapters all the same:

    attn.qkv.weight                   W (O, I)
    attn.qkv.lora_A.default.weight    A (r, I)
    attn.qkv.lora_B.default.weight    B (O, r)
    attn.qkv.lora_magnitude_vector.default.weight    norms (O,), of DoRA

while ``named_parameters()`` has ``attn.qkv.base_layer.weight``.

I inputs, O outputs.
"""
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .quantized_linear import QuantizedLinear

NAME = 'default'  # of the adapters in peft's names
BASE = 'base_layer.'
LORA = 'lora_'  # what the names of an adapter's modules begin with


@dataclass(frozen=True)
class LoraOptions:
    """Options of adapters.

    Attributes:
        r: Rank.
        alpha: Numerator of the factor ``alpha / r``.
        dropout: Probability that an input of A is zeroed in training.
        targets: Names of the linear layers, as a whole ('attn.qkv') or their last part ('qkv').
        use_dora: Whether the norms of the rows are trained, too.
    """
    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = ('qkv', 'proj', 'fc1', 'fc2')
    use_dora: bool = False


def add_lora(module: nn.Module, options: LoraOptions) -> None:
    """Puts adapters around linear layers of a module, and freezes everything else in it.

    Adapters have the dtype of their layers, that of 8-bit ones the default dtype. They have values
    of their own also where the layers are on the meta device, except for the norms of DoRA:
    :func:`reset_norms` computes them, exactly, once the layers have their weights.

    Args:
        module: Block, or another module with linear layers.
        options: Options; each target must match a layer.

    Raises:
        ImportError: If peft is not installed.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import Linear

    config = LoraConfig(
        r=options.r, lora_alpha=options.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=options.dropout, target_modules=list(options.targets),
        use_dora=options.use_dora)
    config._register_custom_module({QuantizedLinear: Linear})  # peft's way to add a kind of layer
    with warnings.catch_warnings():
        # peft says so of every kind of layer that is registered; it reads the two sizes alone.
        warnings.filterwarnings('ignore', 'Unsupported layer type')
        inject_adapter_in_model(config, module, NAME)
    for _, layer in lora_layers(module):
        hide_base_layer(layer)
        if layer.base_layer.weight.is_meta:
            layer.lora_A.to_empty(device='cpu')
            layer.lora_B.to_empty(device='cpu')
            layer.reset_lora_parameters(NAME, True)


def linear_names(module: nn.Module) -> list[str]:
    """Returns the names of the layers of a module that adapters can be put around."""
    return [name for name, child in module.named_modules()
            if isinstance(child, nn.Linear | QuantizedLinear)]


def lora_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields names and layers of peft's within a module."""
    for name, child in module.named_modules():
        if isinstance(getattr(child, 'lora_A', None), nn.ModuleDict) and NAME in child.lora_A:
            yield name, child


def reset_norms(layer: Any) -> None:
    """Sets the norms of a layer with DoRA to those of the rows that it has; else does nothing.

    They are float32, as rounded ones would change what a float32 network computes.
    """
    if NAME in layer.lora_magnitude_vector:
        norms = row_norms(layer, layer.base_layer.weight)
        layer.lora_magnitude_vector[NAME].weight = nn.Parameter(norms)


@torch.no_grad()
def row_norms(layer: Any, weight: Tensor) -> Tensor:
    """Returns the norms (O,) of the rows of W + alpha / r * B A.

    Args:
        layer: Layer with adapters.
        weight: W (O, I).
    """
    a, b = (part[NAME].weight.to(weight.device, torch.float32)
            for part in (layer.lora_A, layer.lora_B))
    return torch.linalg.vector_norm(weight.float() + layer.scaling[NAME] * (b @ a), dim=1)


def native_name(name: str) -> str:
    """Returns the name that a state dict has for a parameter of a module with adapters."""
    return name.replace(f'.{BASE}', '.')


def is_adapter(name: str) -> bool:
    """Returns whether a name, of either kind, is that of an adapter's parameter."""
    return f'.{LORA}' in name


def hide_base_layer(layer: nn.Module) -> None:
    """Gives tensors of the ``base_layer`` of a layer the layer's own names in state dicts."""
    layer.register_state_dict_post_hook(_without_base_layer)
    layer.register_load_state_dict_pre_hook(_with_base_layer)


def _without_base_layer(layer: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    for name in [name for name in state_dict if name.startswith(prefix)]:
        tensor = state_dict.pop(name)  # all of them, which keeps their order
        state_dict[prefix + name.removeprefix(prefix).removeprefix(BASE)] = tensor


def _with_base_layer(layer: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    for name in [name for name in state_dict if name.startswith(prefix)]:
        own = name.removeprefix(prefix)
        if not own.startswith((LORA, BASE)):
            state_dict[f'{prefix}{BASE}{own}'] = state_dict.pop(name)
