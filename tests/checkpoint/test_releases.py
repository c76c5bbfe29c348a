"""The published releases: where a missing one is downloaded, and which one does not fit."""
import pytest
import torch
from helpers.commands import ROOT
from mmcv import Config

from mmseg_custom.checkpoint.backbone_file import check_exists
from mmseg_custom.checkpoint.keys import NATIVE
from mmseg_custom.checkpoint.lazy import LazyStateDict, LazyTensor
from mmseg_custom.checkpoint.load import check_fit
from mmseg_custom.checkpoint.releases import RELEASES, release_of
from mmseg_custom.errors import InputError
from mmseg_custom.models.backbones.intern_vit import InternViT6B


@pytest.mark.parametrize('release', RELEASES, ids=lambda release: release.name)
def test_recipes_look_for_a_release_where_its_download_puts_it(release):
    recipe = next((ROOT / 'configs' / release.recipes).glob('linear_probing/*ade20k*.py'))
    backbone = Config.fromfile(recipe).model.backbone
    assert backbone.pretrained == f'./{release.path}'
    # The file of V1-0 alone has more blocks than its recipes take.
    assert (backbone.embed_dim, backbone.depth) == (
        release.embed_dim, 45 if release.name.endswith('V1-0') else release.depth)


@pytest.mark.parametrize(('path', 'says'), [
    ('./pretrained/InternViT-300M-448px', 'hf download OpenGVLab/InternViT-300M-448px --local-dir'),
    ('/data/InternViT-300M-448px-V2_5/', 'hf download OpenGVLab/InternViT-300M-448px-V2_5 '),
    ('pretrained/intern_vit_6b_224px.pth', 'InternVL/resolve/main/intern_vit_6b_224px.pth'),
    ('pretrained/intern_vit_6b_448px_v1_0.pth', 'main/intern_vit_6b_448px_v1_0.pth'),
    ('weights/InternViT-6B-448px-V2_5', 'main/intern_vit_6b_448px_v2_5.pth'),
    ('weights/mine.pth', 'docs/recipes.md lists the releases'),
])
def test_what_is_missing_is_downloaded_as_what_it_is_named_after(path, says):
    with pytest.raises(InputError) as caught:
        check_exists(path)
    message = str(caught.value)
    assert says in message and 'model.backbone.pretrained=None' in message and '\n' not in message
    assert ('300M' in message) == ('300M' in path)


def test_names_that_are_like_a_release_are_not_taken_for_it():
    for path in ('intern_vit_6b.pth', 'InternViT-6B-448px', 'my_intern_vit_6b_224px.pth', ''):
        assert release_of(path) is None


def on_meta(release=None, **options) -> dict:
    """State dict of a network of a release's size, without any memory."""
    if release is not None:
        options.update(embed_dim=release.embed_dim, depth=release.depth)
        if release.embed_dim == 1024:
            options.update(num_heads=16, qkv_bias=True, qk_normalization=False,
                           norm_type='layer_norm')
    with torch.device('meta'):
        return InternViT6B(**options).state_dict()


@pytest.mark.parametrize(('name', 'path', 'parts'), [
    ('InternViT-6B-448px-V2_5', 'pretrained/intern_vit_6b_448px_v2_5.pth', [
        'holds an InternViT with depth=45, the model has depth=48',
        'InternViT-6B-448px-V2_5 (configs/intern_vit_6b_448px_v2_5), set depth=45']),
    ('InternViT-6B-448px-V1-2', 'pretrained/mine.pth', [
        'V1-2 (configs/intern_vit_6b_448px_v1_2) or InternViT-6B-448px-V1-5 (configs/']),
    ('InternViT-300M-448px', 'pretrained/InternViT-300M-448px', [
        'embed_dim=1024, depth=24', 'the model has embed_dim=3200, depth=48',
        'take a recipe of InternViT-300M-448px (configs/intern_vit_300m), set embed_dim=1024'])])
def test_a_release_that_does_not_fit_is_named_with_its_recipes(name, path, parts):
    release = next(release for release in RELEASES if release.name == name)
    weights = LazyStateDict(path, {
        key: LazyTensor.of(tensor) for key, tensor in on_meta(release).items()})
    assert NATIVE.anchor in weights
    with pytest.raises(InputError) as caught:
        check_fit(weights, on_meta(), lambda name: False)
    message = str(caught.value)
    assert message.startswith(path) and '\n' not in message
    for part in parts:
        assert part in message, message
