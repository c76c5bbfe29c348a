"""What a config says of a backbone, and what its class knows beyond that."""
import pytest
from mmseg.models.builder import BACKBONES
from torch import nn

from mmseg_custom.errors import InputError
from mmseg_custom.models.backbone_options import (
    backbone_class,
    backbone_option,
    traits_of,
)
from mmseg_custom.models.tuning import FROZEN, FULL, LORA, tuning_of


@BACKBONES.register_module()
class OwnBackbone(nn.Module):
    def __init__(self, freeze_vit: bool = True):
        super().__init__()


def test_options_of_an_internvit_are_those_of_its_config_or_its_defaults():
    options = dict(type='InternViT6B', depth=3, pretrained=None)
    assert [backbone_option(options, name) for name in ('depth', 'embed_dim', 'pretrained')] == [
        3, 3200, None]
    assert backbone_option(dict(type='OwnBackbone'), 'patch_size') == 14


@pytest.mark.parametrize('name, said', [
    ('InternViT6B', ['is_ours', 'is_internvit', 'has_frozen_features', 'is_shardable',
                     'is_tunable']),
    ('InternViTAdapter', ['is_ours', 'is_internvit', 'changes_tokens', 'is_shardable',
                          'image_multiple']),
    ('FrozenViT', ['is_ours', 'has_frozen_features', 'renormalizes']),
    ('ResNetV1c', ['is_shardable']),
    ('NoSuchBackbone', ['is_shardable'])])
def test_traits_of_a_class(name, said):
    traits = traits_of(dict(type=name, name='nothing is built'))
    assert {each for each in dir(traits) if each[0] != '_' and getattr(traits, each)} == {*said}


def test_a_backbone_has_the_traits_of_its_options():
    built = OwnBackbone()
    assert traits_of(built) == traits_of(dict(type='OwnBackbone')) == traits_of(
        dict(type=OwnBackbone)) == traits_of(None)
    assert backbone_class(dict(type=OwnBackbone)) is OwnBackbone


def test_what_is_trained_follows_from_the_class():
    assert tuning_of(dict(type='FrozenViT', name='nothing is built')) == FROZEN
    assert tuning_of(dict(type='InternViT6B')) == FULL
    assert tuning_of(dict(type='OwnBackbone')) == FULL  # as long as its config does not say it
    assert tuning_of(dict(type='InternViT6B', adapt=dict(type='lora'))) == LORA


def test_a_network_without_a_name_is_refused():
    with pytest.raises(InputError, match='model.backbone.name=None: expected the name of a netw'):
        backbone_option(dict(type='FrozenViT'), 'depth')
