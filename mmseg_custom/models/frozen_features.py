"""The maps of a frozen backbone, computed or out of a feature cache: what heads are trained on.

B batch, C channels, H W pixels, h w patch grid. A training batch holds ``img``, a tensor
(B, 3, H, W), or in its place ``feats``, the list of maps that a cache has kept for these crops.
"""
import torch
from torch import Tensor, nn


def frozen_features(segmentor: nn.Module, batch: dict) -> list[Tensor]:
    """The frozen maps of a batch, without autograd.

    They are what comes before any trained layer: of a backbone with a feature pyramid, the maps
    that go into the pyramid; :func:`head_inputs` makes of them what the heads take.

    Args:
        segmentor: Unwrapped, with a frozen ``backbone``; mmseg's or one of this package.
        batch: Scattered: plain tensors on the backbone's device.

    Returns:
        One float32 map (B, C, h, w) for each that the backbone reads.
    """
    if 'feats' in batch:
        return [x.float() for x in batch['feats']]
    backbone = segmentor.backbone
    with torch.no_grad():
        if hasattr(backbone, 'frozen_features'):
            return backbone.frozen_features(batch['img'])
        mode = backbone.training
        backbone.eval()
        try:
            return [x.float() for x in backbone(batch['img'])]
        finally:
            backbone.train(mode)


def head_inputs(segmentor: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """Frozen maps -> what the heads take: through the pyramid and the neck, where there are some.

    Args:
        segmentor: As for :func:`frozen_features`.
        maps: From :func:`frozen_features`.
    """
    if hasattr(segmentor.backbone, 'frozen_features'):
        maps = segmentor.backbone(maps)
    return segmentor.neck(maps) if getattr(segmentor, 'with_neck', False) else maps


def as_inputs(batch: dict) -> dict:
    """A training batch as a segmentor's ``train_step`` takes it.

    mmseg's segmentors hand ``img`` to the backbone as it is, and ours takes maps in its place: no
    segmentor has to know of the cache.
    """
    if 'feats' not in batch:
        return batch
    return {'img' if name == 'feats' else name: value for name, value in batch.items()}
