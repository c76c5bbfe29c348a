"""Weights of a segmentor as an exported one names and stores them.

They keep the dtypes that tests compute with: a frozen backbone its 16 or 8 bits, heads float32; and
what was trained in float32 is rounded as in tests. Auxiliary heads and blocks that are not read are
left out.
"""
from collections.abc import Collection

from torch import nn

from ...checkpoint.keys import BACKBONE, block_of
from ...checkpoint.lazy import LazyStateDict, LazyTensor
from ...layers.lora import is_adapter
from ...layers.plain_lora import plain_name
from ...models.backbones.intern_vit import InternViT6B
from .description import blocks_read

PARTS = (BACKBONE, 'decode_head.')


def exported_weights(model: nn.Module) -> LazyStateDict:
    """Returns the weights of a segmentor, which stay its own, under the names of an exported one.

    Args:
        model: Segmentor, as it is tested.
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()
             if name.startswith(PARTS) and not _is_unread(name, model.backbone)}
    adapted = {name.partition('.lora_')[0] for name in state if is_adapter(name)}
    return LazyStateDict('the segmentor', {
        _exported_name(name, adapted): LazyTensor.of(tensor) for name, tensor in state.items()})


def _is_unread(name: str, backbone: nn.Module) -> bool:
    """Returns whether a tensor is of a block that no feature map needs."""
    if type(backbone) is not InternViT6B or not name.startswith(BACKBONE):
        return False
    block = block_of(name.removeprefix(BACKBONE))
    return block is not None and block >= blocks_read(backbone)


def _exported_name(name: str, adapted: Collection[str]) -> str:
    """Returns the name of a tensor in an exported segmentor: see :mod:`...layers.plain_lora`.

    Args:
        name: Name in the state dict of the segmentor.
        adapted: Names of the layers with adapters.
    """
    layer, _, leaf = name.rpartition('.')
    return f'{layer}.base_layer.{leaf}' if layer in adapted else plain_name(name)
