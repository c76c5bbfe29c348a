"""Tiny networks with random adapters, and their checkpoints."""
from typing import Any

import torch
from helpers.tiny_networks import Segmentor
from torch import Tensor, nn

from mmseg_custom.checkpoint.save import save_checkpoint
from mmseg_custom.layers.lora import is_adapter


def adapted(pretrained: str | None, **adapt: Any) -> Segmentor:
    """Builds a segmentor of which all adapters have random values, in float32.

    Args:
        pretrained: File of the backbone; None for random weights.
        **adapt: Options of the adapters that replace the defaults; ``backbone`` has others of the
            backbone.
    """
    backbone = adapt.pop('backbone', {})
    model = Segmentor(pretrained=pretrained, **backbone,
                      adapt=dict(dict(type='lora', r=4, alpha=6), **adapt)).float().eval()
    for name, parameter in model.backbone.named_parameters():
        if 'magnitude' in name:
            parameter.data.mul_(torch.rand_like(parameter) + 0.5)
        elif is_adapter(name):
            nn.init.normal_(parameter.data, std=0.2)
    nn.init.normal_(model.decode_head.conv_seg.weight)
    return model


def save(model: Segmentor, folder, name: str = 'iter_1.pth') -> str:
    """Writes a checkpoint with the state of an optimizer; returns its path."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    path = str(folder / name)
    save_checkpoint(model, path, optimizer, dict(iter=1, CLASSES=['a', 'b', 'c']))
    return path


@torch.no_grad()
def features(model: Segmentor, size: int = 56) -> Tensor:
    """Computes the feature map (2, D, h, w) of fixed random images, in float32."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return model.float().eval().backbone(images)[0]
