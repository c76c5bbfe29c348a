"""Tiny networks of windows, as exported graphs are made of, without mmcv and mmseg."""
import pytest
import torch
from torch import nn

from mmseg_custom.deploy.network import WindowNetwork
from mmseg_custom.deploy.program import LOWEST_TORCH
from mmseg_custom.models.backbones.frozen_vit import FrozenViT
from mmseg_custom.models.backbones.intern_vit import InternViT6B
from mmseg_custom.models.backbones.intern_vit_adapter import InternViTAdapter
from mmseg_custom.models.decode_heads.fcn_head import FCNHead
from mmseg_custom.models.decode_heads.plain_mask_head import PlainMaskHead
from mmseg_custom.models.decode_heads.uper_head import UPerHead

writes_graphs = pytest.mark.skipif(torch.__version__ < LOWEST_TORCH,
                                  reason=f'graphs need PyTorch {LOWEST_TORCH}')
SIZE = dict(embed_dim=32, num_heads=2, img_size=56, use_flash_attn=False)
LEVELS = dict(in_channels=[32] * 4, in_index=[0, 1, 2, 3], channels=8, num_classes=5,
              align_corners=False)
MASKS = dict(num_classes=5, channels=32, num_queries=6, num_blocks=1, num_heads=2,
             num_upscalings=1)


def linear_head() -> nn.Module:
    """Builds a linear probe of 5 classes."""
    return FCNHead(in_channels=32, channels=32, num_classes=5, num_convs=0, concat_input=False,
                   with_norm=True, loss_decode=None)


def window_network(kind: str, dtype: torch.dtype = torch.float32) -> WindowNetwork:
    """Builds a network with distinct random values.

    Args:
        kind: 'linear', 'upernet' (with a pyramid), 'masks', 'eomt', 'adapter', 'timm', 'int8',
            or 'fp8'.
        dtype: Dtype of the backbone's parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone, head = _PARTS[kind]()
        for parameter in [*backbone.parameters(), *head.parameters()]:
            if parameter.is_floating_point() and kind != 'timm':
                nn.init.normal_(parameter.data, std=0.2)
    if kind in ('int8', 'fp8'):
        backbone = InternViT6B(**SIZE, depth=1, out_indices=[0], freeze_vit=True,
                               frozen_dtype=kind).eval()
    if kind == 'eomt':
        head.blocks.join(backbone)
    return WindowNetwork(backbone.to(dtype), head)


def _linear() -> tuple[nn.Module, nn.Module]:
    return InternViT6B(**SIZE, depth=1, out_indices=[0]), linear_head()


def _upernet() -> tuple[nn.Module, nn.Module]:
    backbone = InternViT6B(**SIZE, depth=4, out_indices=[0, 1, 2, 3], with_fpn=True,
                           norm_type='layer_norm', qkv_bias=True, qk_normalization=False)
    return backbone, UPerHead(**LEVELS, loss_decode=None)


def _masks() -> tuple[nn.Module, nn.Module]:
    return InternViT6B(**SIZE, depth=2, out_indices=[0, 1]), PlainMaskHead(
        in_channels=[32, 32], in_index=[0, 1], **MASKS)


def _eomt() -> tuple[nn.Module, nn.Module]:
    return InternViT6B(**SIZE, depth=2, out_indices=[1]), PlainMaskHead(
        in_channels=32, blocks='backbone', **MASKS)


def _adapter() -> tuple[nn.Module, nn.Module]:
    backbone = InternViTAdapter(
        **{**SIZE, 'img_size': 64}, depth=2, conv_inplane=8, deform_num_heads=2, n_points=2,
        interaction_indexes=[[0, 0], [1, 1]])
    return backbone, UPerHead(**LEVELS, loss_decode=None)


def _timm() -> tuple[nn.Module, nn.Module]:
    backbone = FrozenViT('vit_small_patch14_reg4_dinov2', None, [1], final_norm=True,
                         overrides=dict(embed_dim=32, depth=2, num_heads=2))
    return backbone, linear_head()


_PARTS = dict(linear=_linear, upernet=_upernet, masks=_masks, eomt=_eomt, adapter=_adapter,
              timm=_timm, int8=_linear, fp8=_linear)
