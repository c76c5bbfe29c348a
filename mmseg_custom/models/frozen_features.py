"""What the frozen part of a backbone computes, or a feature cache holds.

B batch, C channels, H W pixels, h w patch grid. A training batch holds ``img``, a tensor
(B, 3, H, W), or in its place ``feats``, what a cache holds for these crops.
"""
from torch import Tensor, nn


def frozen_features(segmentor: nn.Module, batch: dict) -> list[Tensor]:
    """Returns what is computed of a batch before any trained layer, without autograd.

    Of a backbone with a feature pyramid these are the inputs of the pyramid; of one that is trained
    in part, feature maps before the first trained block, and the tokens that this is given. Given
    to the backbone in the place of images, they go the rest of the way.

    Args:
        segmentor: Unwrapped segmentor whose ``backbone`` offers frozen feature maps: an
            InternViT6B, frozen or trained in part, or a FrozenViT.
        batch: Plain tensors on the backbone's device, after mmcv's scatter.

    Returns:
        Float32 maps (B, C, h, w): see ``frozen_features`` of the backbone.
    """
    if 'feats' in batch:
        return [x.float() for x in batch['feats']]
    return segmentor.backbone.frozen_features(batch['img'])
