"""Copies of a network that compute in another dtype and hold few of its weights, or none.

Those of InternViT-6B take 12 GB in bfloat16, and 24 in float32: nothing here has both at once. The
dtype is that of the backbone; heads are copied in float32, and without casts of their own.
"""
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..distributed.casts import ParameterCasts
from .network import WindowNetwork


def without_values(network: WindowNetwork, dtype: torch.dtype) -> WindowNetwork:
    """Copies a network to the meta device.

    Args:
        network: Network, whose weights may have other dtypes.
        dtype: Dtype that the backbone of the copy computes in.
    """
    return _copied(network, dtype, lambda tensor, to: torch.empty_like(
        tensor, dtype=to, device='meta'))


def computing_in(network: WindowNetwork, dtype: torch.dtype) -> WindowNetwork:
    """Copies a network; weights of its blocks are shared with it, and cast while they run.

    Args:
        network: Network, whose weights may have other dtypes.
        dtype: Dtype that the backbone of the copy computes in.
    """
    place, blocks = max(((name, module) for name, module in network.backbone.named_modules()
                         if isinstance(module, nn.ModuleList)), key=lambda each: len(each[1]),
                        default=('', nn.ModuleList()))
    shared = {id(tensor) for tensor in blocks.parameters()}
    made = _copied(network, dtype, lambda tensor, to: tensor if id(tensor) in shared
                   else tensor.to(to))
    for block in made.backbone.get_submodule(place).children() if place else ():
        ParameterCasts(block, [name for name, parameter in block.named_parameters()
                               if parameter.is_floating_point()], dtype, dtype)
    return made


def tensors_of(network: WindowNetwork) -> dict[str, Tensor]:
    """Returns parameters and buffers by their names, and those of them that state dicts rename."""
    return {**network.state_dict(keep_vars=True), **dict(network.named_parameters()),
            **dict(network.named_buffers())}


def dtypes_in(network: WindowNetwork, dtype: torch.dtype) -> dict[int, torch.dtype]:
    """Returns the dtype of each parameter and buffer, by its ``id()``, in a copy of a network.

    Args:
        network: Network.
        dtype: Dtype that the backbone of the copy computes in.
    """
    found: dict[int, torch.dtype] = {}
    for name, tensor in tensors_of(network).items():
        if not tensor.is_floating_point():
            found[id(tensor)] = tensor.dtype
        elif isinstance(tensor, nn.Parameter):
            found[id(tensor)] = dtype if name.startswith('backbone.') else torch.float32
        else:  # Tables of positions and scales of 8-bit weights stay float32.
            found[id(tensor)] = torch.promote_types(tensor.dtype, dtype)
    return found


def _copied(network: WindowNetwork, dtype: torch.dtype,
            convert: Callable[[Tensor, torch.dtype], Tensor]) -> WindowNetwork:
    """Copies the modules of a network around tensors of another function's making."""
    dtypes = dtypes_in(network, dtype)
    memo: dict[int, Tensor] = {}
    for tensor in tensors_of(network).values():
        if id(tensor) in memo:
            continue  # under another name
        made = convert(tensor, dtypes[id(tensor)])
        memo[id(tensor)] = (nn.Parameter(made, requires_grad=False)
                            if isinstance(tensor, nn.Parameter) else made)
    copied = copy.deepcopy(network, memo)
    for module in copied.modules():
        if (casts := ParameterCasts.of(module)) is not None:
            casts.remove()
        if callable(set_map_format := getattr(module, 'set_map_format', None)):
            set_map_format()
    return copied
