"""Weights of a segmentor as an exported one stores them.

They keep the dtypes that tests compute with: a frozen backbone its 16 or 8 bits, heads float32; and
what was trained in float32 is rounded as in tests. Auxiliary heads and blocks that are not read are
left out.
"""
from torch import nn

from ...checkpoint.keys import BACKBONE, block_of
from ...checkpoint.lazy import LazyStateDict, LazyTensor
from ...models.backbones.intern_vit import InternViT6B
from .description import blocks_read

PARTS = (BACKBONE, 'decode_head.')


def exported_weights(model: nn.Module) -> LazyStateDict:
    """Returns the weights of a segmentor, which stay its own.

    Args:
        model: Segmentor, as it is tested.
    """
    return LazyStateDict('the segmentor', {
        name: LazyTensor.of(tensor.detach()) for name, tensor in model.state_dict().items()
        if name.startswith(PARTS) and not _is_unread(name, model.backbone)})


def _is_unread(name: str, backbone: nn.Module) -> bool:
    """Returns whether a tensor is of a block that no feature map needs."""
    if type(backbone) is not InternViT6B or not name.startswith(BACKBONE):
        return False
    block = block_of(name.removeprefix(BACKBONE))
    return block is not None and block >= blocks_read(backbone)

