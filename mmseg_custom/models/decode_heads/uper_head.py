"""UPerNet's head: a pyramid of poolings over the coarsest map, and a feature pyramid.

B batch, C channels, h w grid, K classes.
"""
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.resize import AdaptiveAvgPool2d, resize_bilinear
from .decode_head import DecodeHead


class UPerHead(DecodeHead):
    """Head of UPerNet (Xiao et al., "Unified Perceptual Parsing for Scene Understanding", 2018).

    Parameters and results are those of mmseg's. Maps are pooled and resized by
    :mod:`mmseg_custom.layers.resize`, so that training can be deterministic on a GPU.

    Args:
        pool_scales: Sides of the grids that the coarsest map is pooled to.
        **kwargs: Arguments of :class:`.decode_head.DecodeHead`.
    """

    def __init__(self, pool_scales: Sequence[int] = (1, 2, 3, 6), **kwargs: Any):
        super().__init__(input_transform='multiple_select', **kwargs)
        *fine, coarsest = self.in_channels
        self.psp_modules = PoolingPyramid(
            (nn.Sequential(AdaptiveAvgPool2d(scale), self.conv_module(coarsest, 1))
             for scale in pool_scales), self.align_corners)
        self.bottleneck = self.conv_module(coarsest + len(pool_scales) * self.channels, 3,
                                           padding=1)
        self.lateral_convs, self.fpn_convs = nn.ModuleList(), nn.ModuleList()
        for width in fine:  # The coarsest map passes the poolings.
            self.lateral_convs.append(self.conv_module(width, 1, inplace=False))
            self.fpn_convs.append(self.conv_module(self.channels, 3, padding=1, inplace=False))
        self.fpn_bottleneck = self.conv_module(len(self.in_channels) * self.channels, 3, padding=1)

    def psp_forward(self, inputs: list[Tensor]) -> Tensor:
        """Pools the coarsest map at all scales: [..., (B, C, h, w)] -> (B, channels, h, w)."""
        coarsest = inputs[-1]
        return self.bottleneck(torch.cat([coarsest, *self.psp_modules(coarsest)], dim=1))

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """Feature maps, from fine to coarse -> inputs of the classifier (B, channels, h, w)."""
        inputs = self._transform_inputs(inputs)
        maps = [conv(x) for conv, x in zip(self.lateral_convs, inputs)] + [self.psp_forward(inputs)]
        for i in reversed(range(len(maps) - 1)):  # from coarse to fine
            maps[i] = maps[i] + self._resize(maps[i + 1], maps[i])
        maps = [conv(x) for conv, x in zip(self.fpn_convs, maps)] + maps[-1:]
        maps = maps[:1] + [self._resize(x, maps[0]) for x in maps[1:]]
        return self.fpn_bottleneck(torch.cat(maps, dim=1))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Feature maps [(B, C_i, h_i, w_i)], from fine to coarse -> logits (B, K, h, w)."""
        return self.cls_seg(self._forward_feature(inputs))

    def _resize(self, maps: Tensor, like: Tensor) -> Tensor:
        return resize_bilinear(maps, like.shape[2:], self.align_corners)


class PoolingPyramid(nn.ModuleList):
    """Poolings of a map at several scales (Zhao et al., "Pyramid Scene Parsing Network", 2017).

    Args:
        branches: Modules that pool the map to their own grids.
        align_corners: Option of resizing the results.
    """

    def __init__(self, branches: Iterable[nn.Module], align_corners: bool):
        super().__init__(branches)
        self.align_corners = align_corners

    def forward(self, maps: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> a map (B, channels, h, w) for each branch."""
        return [resize_bilinear(branch(maps), maps.shape[2:], self.align_corners)
                for branch in self]
