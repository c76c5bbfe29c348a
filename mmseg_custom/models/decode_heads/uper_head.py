"""UPerNet's head: mmseg's (Xiao et al., 2018), whose loss needs no upsampled logits.

B batch, C channels, h w grid.
"""
import torch
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead
from torch import Tensor

from ...layers.resize import AdaptiveAvgPool2d, resize_bilinear
from .upsampled_loss import UpsampledLoss


class UPerHead(UpsampledLoss, MMSegUPerHead):
    """``mmseg.models.decode_heads.UPerHead`` with :class:`.upsampled_loss.UpsampledLoss`.

    Maps are pooled and resized by :mod:`mmseg_custom.layers.resize`, so that training can be
    deterministic on a GPU. The parameters and the results are those of mmseg's head.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for branch in self.psp_modules:
            branch[0] = AdaptiveAvgPool2d(branch[0].output_size)

    def psp_forward(self, inputs: list[Tensor]) -> Tensor:
        """Pools the coarsest map at all scales: [..., (B, C, h, w)] -> (B, channels, h, w)."""
        coarsest = inputs[-1]
        pooled = [self._resize(branch(coarsest), coarsest) for branch in self.psp_modules]
        return self.bottleneck(torch.cat([coarsest, *pooled], dim=1))

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """Feature maps, from fine to coarse -> inputs of the classifier (B, channels, h, w)."""
        inputs = self._transform_inputs(inputs)
        maps = [conv(x) for conv, x in zip(self.lateral_convs, inputs)] + [self.psp_forward(inputs)]
        for i in reversed(range(len(maps) - 1)):  # from coarse to fine
            maps[i] = maps[i] + self._resize(maps[i + 1], maps[i])
        maps = [conv(x) for conv, x in zip(self.fpn_convs, maps)] + maps[-1:]
        maps = maps[:1] + [self._resize(x, maps[0]) for x in maps[1:]]
        return self.fpn_bottleneck(torch.cat(maps, dim=1))

    def _resize(self, maps: Tensor, like: Tensor) -> Tensor:
        return resize_bilinear(maps, like.shape[2:], self.align_corners)
