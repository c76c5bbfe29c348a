"""Minute networks of both families, and their files."""
import pytest
import torch
from torch import nn

from mmseg_custom.models.backbones.intern_vit import InternViT6B

FAMILIES = {
    '6b': dict(),
    '300m': dict(norm_type='layer_norm', qkv_bias=True, qk_normalization=False),
}
SIZE = dict(embed_dim=32, num_heads=2, depth=3, img_size=56, out_indices=[2])


def tiny(family: str = '6b', **options) -> InternViT6B:
    """A backbone of 3 blocks on a grid of 4x4, in float32, with distinct random values."""
    model = InternViT6B(**{**SIZE, **FAMILIES[family], **options})
    if options.get('pretrained') is None:
        model.float()
        for parameter in model.parameters():
            nn.init.normal_(parameter.data, std=0.3)
    return model.eval()


class Segmentor(nn.Module):
    """A backbone and a head, as far as checkpoints see one."""

    def __init__(self, classes: int = 3, **options):
        super().__init__()
        self.backbone = InternViT6B(**{**SIZE, **options})
        self.decode_head = nn.ModuleDict(dict(norm=nn.BatchNorm2d(32),
                                              conv_seg=nn.Conv2d(32, classes, 1)))


def same(mine, theirs) -> bool:
    """Whether two state dicts are equal, bit by bit."""
    return mine.keys() == theirs.keys() and all(
        mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name])
        for name in mine)


def write_flat(tmp_path) -> str:
    """The path of a flat .pth in bfloat16, like the released one, of the 6B family."""
    path = str(tmp_path / 'flat.pth')
    torch.save(tiny().bfloat16().state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Hashes are kept in a folder of the test's own."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
