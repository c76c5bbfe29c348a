"""The network of a segmentor alone: windows in, logits out. What graphs are made of.

B windows, H W pixels of a window, K classes, h w cells of the head's logits.
"""
from typing import Any

import torch
from torch import Tensor, nn


class WindowNetwork(nn.Module):
    """Backbone and decode head as one network, in eval mode.

    Args:
        backbone: Network of windows (B, 3, H, W) that returns feature maps.
        decode_head: Network of feature maps that returns logits (B, K, h, w).
    """

    def __init__(self, backbone: nn.Module, decode_head: nn.Module):
        super().__init__()
        self.backbone, self.decode_head = backbone, decode_head
        self.requires_grad_(False).eval()

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the backbone's parameters."""
        return next(parameter.dtype for parameter in self.backbone.parameters()
                    if parameter.is_floating_point())

    @property
    def multiple(self) -> int:
        """Number of pixels that divides the sides of a window."""
        backbone: Any = self.backbone
        return getattr(backbone, 'image_multiple', None) or backbone.patch_size

    @property
    def only_size(self) -> tuple[int, int] | None:
        """Height and width of the only windows that it takes; None for any multiple."""
        return getattr(getattr(self.backbone, 'facts', None), 'only_size', None)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (B, 3, H, W), normalised -> float32 logits (B, K, h, w)."""
        return self.decode_head(self.backbone(windows)).float()
