"""The FCN head, with the batch norm before the classifier that makes it a linear probe.

B batch, C channels, h w grid, K classes.
"""
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from .decode_head import DecodeHead


class FCNHead(DecodeHead):
    """Convolutions and a classifier (Long et al., 2015): mmseg's FCN head, and ``with_norm``.

    ``num_convs=0, concat_input=False, with_norm=True`` is linear probing: batch norm over the
    channels, then a 1x1 classifier.

    Args:
        num_convs: Number of convolutions before the classifier.
        kernel_size: Kernel size of these convolutions.
        concat_input: Whether the classifier reads the input beside the output of the convolutions.
        dilation: Dilation of these convolutions.
        with_norm: Whether a batch norm over the channels precedes the classifier: SyncBN, which is
            plain batch norm in a single process.
        **kwargs: Arguments of :class:`.decode_head.DecodeHead`.

    Raises:
        InputError: If a number is negative, or there are no convolutions, and the classifier takes
            another number of channels than the input has.
    """

    def __init__(self, num_convs: int = 2, kernel_size: int = 3, concat_input: bool = True,
                 dilation: int = 1, with_norm: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_convs, self.kernel_size = num_convs, kernel_size
        self.concat_input = concat_input
        if num_convs < 0 or dilation < 1:
            raise InputError(f'num_convs={num_convs}, dilation={dilation}: expected 0 or more '
                             'convolutions, and a dilation of 1 or more')
        if num_convs == 0 and self.in_channels != self.channels:
            raise InputError(f'channels={self.channels} with num_convs=0: expected those of the '
                             f'input, in_channels={self.in_channels}')
        self.convs = nn.Sequential(*(
            self.conv_module(self.channels if i else self.in_channels, kernel_size,
                             padding=kernel_size // 2 * dilation, dilation=dilation)
            for i in range(num_convs))) if num_convs else nn.Identity()
        if concat_input:
            self.conv_cat = self.conv_module(self.in_channels + self.channels, kernel_size,
                                             padding=kernel_size // 2)
        self.norm = nn.SyncBatchNorm(self.channels) if with_norm else nn.Identity()

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """Feature maps [(B, C_i, h_i, w_i)] -> inputs of the classifier (B, channels, h, w)."""
        x = self._transform_inputs(inputs)
        features = self.convs(x)
        if self.concat_input:
            features = self.conv_cat(torch.cat([x, features], dim=1))
        return self.norm(features)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Feature maps [(B, C_i, h_i, w_i)] -> logits (B, K, h, w)."""
        return self.cls_seg(self._forward_feature(inputs))
