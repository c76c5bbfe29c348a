"""Tiny networks of both families, their configs and their files."""
import torch
from mmcv import ConfigDict
from torch import nn

from mmseg_custom.models.backbones.intern_vit import InternViT6B

FAMILIES = {
    '6b': dict(),
    '300m': dict(norm_type='layer_norm', qkv_bias=True, qk_normalization=False),
}
SIZE = dict(embed_dim=32, num_heads=2, depth=3, img_size=56, out_indices=[2])

# A ViT-Adapter on 4 blocks of width 32, for images whose sides are multiples of 32 pixels.
ADAPTER = dict(type='InternViTAdapter', embed_dim=32, num_heads=2, depth=4, img_size=32,
               patch_size=16, conv_inplane=8, deform_num_heads=2, n_points=2,
               interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]], deform_ratio=0.5)


def tiny(family: str = '6b', **options) -> InternViT6B:
    """Builds a backbone of 3 blocks on a grid of 4x4, in float32, with distinct random values."""
    model = InternViT6B(**{**SIZE, **FAMILIES[family], **options})
    if options.get('pretrained') is None:
        model.float()
        for parameter in model.parameters():
            nn.init.normal_(parameter.data, std=0.3)
    return model.eval()


def segmentor_config(head: str = 'linear', kind: str = 'InternViTSegmentor',
                     heads: dict | None = None, test_cfg: dict | None = None,
                     **backbone) -> ConfigDict:
    """Returns the config of a tiny segmentor.

    Args:
        head: 'linear', or 'upernet' with a feature pyramid and an auxiliary head.
        kind: Type of the segmentor.
        heads: Options of all its heads that replace the defaults.
        test_cfg: How it is tested.
        **backbone: Options of the backbone that replace the defaults; it has 4 blocks of width 32.
    """
    upernet = head == 'upernet'
    backbone = dict(dict(type='InternViT6B', embed_dim=32, depth=4, num_heads=2, img_size=28,
                         with_fpn=upernet), **backbone)
    width, depth = backbone['embed_dim'], backbone['depth']
    backbone.setdefault('out_indices', list(range(depth - 4, depth)) if upernet else [depth - 1])
    common = dict(num_classes=5, channels=8 if upernet else width, align_corners=False)
    common.update(heads or {})
    fcn = dict(common, type='FCNHead', in_channels=width, concat_input=False)
    config = ConfigDict(type=kind, backbone=backbone, decode_head=dict(fcn, num_convs=0),
                        test_cfg=test_cfg or dict(mode='whole'))
    if upernet:
        config.decode_head = ConfigDict(common, type='UPerHead', in_channels=[width] * 4,
                                        in_index=[0, 1, 2, 3])
        config.auxiliary_head = ConfigDict(fcn, in_index=2, num_convs=1)
    return config


class Segmentor(nn.Module):
    """A backbone and a head, as far as checkpoints see one."""

    def __init__(self, classes: int = 3, **options):
        super().__init__()
        self.backbone = InternViT6B(**{**SIZE, **options})
        self.decode_head = nn.ModuleDict(dict(norm=nn.BatchNorm2d(32),
                                              conv_seg=nn.Conv2d(32, classes, 1)))


def same(mine, theirs) -> bool:
    """Returns whether two state dicts are equal, bit by bit."""
    return mine.keys() == theirs.keys() and all(
        mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name])
        for name in mine)


def write_flat(tmp_path) -> str:
    """Writes a flat .pth in bfloat16, like the released one, of the 6B family; returns its path."""
    path = str(tmp_path / 'flat.pth')
    torch.save(tiny().bfloat16().state_dict(), path)
    return path
