"""Feature maps of a frozen backbone, computed or read from a feature cache.

B batch, C channels, H W pixels, h w patch grid. A training batch holds ``img``, a tensor
(B, 3, H, W), or in its place ``feats``, the feature maps that a cache holds for these crops.
"""
from torch import Tensor, nn


def frozen_features(segmentor: nn.Module, batch: dict) -> list[Tensor]:
    """Returns the feature maps of a batch before any trained layer, without autograd.

    Of a backbone with a feature pyramid these are the inputs of the pyramid; given to the backbone
    in the place of images, they go the rest of the way.

    Args:
        segmentor: Unwrapped segmentor whose ``backbone`` is a frozen InternViT6B.
        batch: Plain tensors on the backbone's device, after mmcv's scatter.

    Returns:
        One float32 feature map (B, C, h, w) for each output of the backbone.
    """
    if 'feats' in batch:
        return [x.float() for x in batch['feats']]
    return segmentor.backbone.frozen_features(batch['img'])
