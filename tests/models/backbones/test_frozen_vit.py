"""Feature maps of other libraries' networks are what these libraries compute."""
import json

import pytest
import timm
import torch
from helpers.logs import logged
from torch import nn
from transformers import (
    AltCLIPVisionConfig,
    AutoModel,
    BeitConfig,
    CLIPVisionConfig,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    InternVLVisionConfig,
    PixtralVisionConfig,
    RadioConfig,
    SiglipVisionConfig,
    SwinConfig,
    ViTConfig,
    ViTMAEConfig,
)
from transformers.utils.logging import set_verbosity_error

from mmseg_custom.distributed import precision
from mmseg_custom.errors import InputError
from mmseg_custom.models import FrozenViT
from mmseg_custom.models.backbone_options import backbone_option
from mmseg_custom.models.backbones.frozen_vit import MEAN, STD
from mmseg_custom.models.backbones.upstream_networks import facts_of

GRID = (3, 5)
SIZES = dict(depth=3, embed_dim=48, num_heads=4)
IN_TIMM = [
    'vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3', 'vit_base_patch16_siglip_224',
    'eva02_small_patch14_224', 'beit_base_patch16_224', 'deit_base_distilled_patch16_224',
    *(pytest.param(name, marks=pytest.mark.slow) for name in (
        'vit_base_patch16_clip_224', 'vit_base_patch16_224.mae', 'vit_base_patch16_radio_v3',
        'naflexvit_base_patch16_gap', 'aimv2_large_patch14_224', 'cait_xxs24_224',
        'vit_pe_spatial_base_patch16_512', 'vit_intern300m_patch14_448'))]
NO_DYNAMIC_SIZE = ('beit', 'naflex', 'cait')
SMALL = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4)
MLP = dict(intermediate_size=96)
IN_TRANSFORMERS = {
    'dinov2': Dinov2Config(**SMALL, patch_size=14, image_size=56),
    'dinov2, gated': Dinov2Config(**SMALL, patch_size=14, image_size=56, use_swiglu_ffn=True),
    'dinov2, registers': Dinov2WithRegistersConfig(**SMALL, patch_size=14, image_size=56),
    'dinov3': DINOv3ViTConfig(**SMALL, **MLP, patch_size=16, num_register_tokens=4),
    'siglip': SiglipVisionConfig(**SMALL, **MLP, patch_size=16, image_size=64),
    'clip': CLIPVisionConfig(**SMALL, **MLP, patch_size=16, image_size=64),
    'deit': DeiTConfig(**SMALL, **MLP, patch_size=16, image_size=64),
    'beit': BeitConfig(**SMALL, **MLP, patch_size=16, image_size=64,
                       use_relative_position_bias=True),
    'internvl': InternVLVisionConfig(**SMALL, **MLP, patch_size=[14, 14], image_size=[56, 56]),
    'radio': RadioConfig(**SMALL, **MLP, patch_size=16)}


@pytest.fixture(autouse=True, scope='module')
def _quiet():
    set_verbosity_error()


def draw(network: nn.Module) -> nn.Module:
    """Draws norms and scales, too, all in numbers that bfloat16 has."""
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.5, 0.2)
        parameter.data = parameter.data.bfloat16().float()
    return network.eval()


def in_timm(name: str, **options: object) -> nn.Module:
    size = {} if name.startswith(NO_DYNAMIC_SIZE) else dict(dynamic_img_size=True)
    return draw(timm.create_model(name, **SIZES, **size, **options))


def save_transformers(config, folder) -> nn.Module:
    network = draw(AutoModel.from_config(config))
    network.save_pretrained(folder)
    return network


def images_for(backbone: FrozenViT) -> torch.Tensor:
    side = backbone.patch_size
    size = backbone.facts.only_size or (GRID[0] * side, GRID[1] * side)
    return torch.randn(2, 3, *size)


def assert_equal(backbone: FrozenViT, images: torch.Tensor, expected: list[torch.Tensor]) -> None:
    """Compares maps in float32, and what the backbone computes in bfloat16 with them."""
    backbone.renormalize.is_identity = True  # The reference is given the same images.
    rounded = backbone(images)
    backbone.model.float()
    for found, near, wanted in zip(backbone(images), rounded, expected, strict=True):
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max()
        assert (near - wanted).norm() / wanted.norm() < 0.02


@pytest.mark.parametrize('name', IN_TIMM)
def test_feature_maps_equal_timm(name, tmp_path):
    reference = in_timm(name)
    torch.save(reference.state_dict(), tmp_path / 'weights.pth')
    backbone = FrozenViT(name, str(tmp_path / 'weights.pth'), out_indices=[0, 2], overrides=SIZES)
    images = images_for(backbone)
    with torch.no_grad():
        expected = reference.forward_intermediates(images, indices=[0, 2], intermediates_only=True)
    assert_equal(backbone, images, expected)


SELDOM = ('dinov2', 'clip', 'deit', 'beit')


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SELDOM)) for name in IN_TRANSFORMERS])
def test_feature_maps_equal_transformers(name, tmp_path):
    reference = save_transformers(IN_TRANSFORMERS[name], tmp_path)
    backbone = FrozenViT(str(tmp_path), out_indices=[0, 2])
    images = images_for(backbone)
    if name == 'radio':  # It normalises images by itself, which the backbone does before it.
        assert backbone.own_mean == tuple(reference.config.norm_mean)
        reference.make_preprocessor_external()
    with torch.no_grad():
        states = reference(images, output_hidden_states=True, **(
            dict(interpolate_pos_encoding=True) if name in ('siglip', 'clip', 'deit', 'beit')
            else {})).hidden_states
    count = GRID[0] * GRID[1]
    assert_equal(backbone, images, [states[i + 1][:, -count:].transpose(1, 2).unflatten(2, GRID)
                                    for i in (0, 2)])


@pytest.mark.parametrize('name', ['eva02_small_patch14_224', 'vit_small_patch16_dinov3'])
def test_a_cpu_without_fast_bfloat16_computes_in_float32(name, monkeypatch):
    monkeypatch.setattr(precision, 'is_fast_on_cpu', lambda dtype: dtype == torch.float32)
    backbone = FrozenViT(name, overrides=SIZES)
    images = images_for(backbone)
    segmentor = nn.Module()
    segmentor.backbone = backbone
    precision.apply_precision(segmentor, torch.bfloat16, 'cpu')
    found = backbone(images)[0]
    assert backbone.dtype == torch.bfloat16
    backbone.model.float()
    torch.testing.assert_close(found, backbone(images)[0])


def test_the_final_norm_is_the_networks_own(tmp_path):
    reference = save_transformers(IN_TRANSFORMERS['dinov2'], tmp_path)
    backbone = FrozenViT(str(tmp_path), final_norm=True)
    assert backbone.out_indices == [2]
    images = images_for(backbone)
    with torch.no_grad():
        expected = reference(images).last_hidden_state[:, 1:].transpose(1, 2).unflatten(2, GRID)
    assert_equal(backbone, images, [expected])


@pytest.mark.parametrize('name', ['eva02_small_patch14_224', 'vit_base_patch16_radio_v3'])
def test_a_network_without_a_final_norm_has_none_to_apply(name):
    with pytest.raises(InputError, match='has no norm behind its last layer: leave final_norm out'):
        FrozenViT(name, overrides=SIZES, final_norm=True)


def test_images_are_normalised_anew():
    pixels = torch.rand(1, 3, 16, 16)
    arriving = (255 * pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    backbone = FrozenViT('vit_base_patch16_siglip_224', overrides=SIZES)
    torch.testing.assert_close(backbone.renormalize(arriving), (pixels - 0.5) / 0.5, atol=1e-5,
                               rtol=0)
    same = FrozenViT('vit_small_patch14_dinov2', overrides=SIZES)
    assert same.renormalize(arriving) is arriving  # not a bit is changed
    own = FrozenViT('vit_small_patch14_dinov2', overrides=SIZES, own_mean=[0.0] * 3,
                    own_std=[1 / 255] * 3, mean=[0.0] * 3, std=[1.0] * 3)
    assert own.renormalize(arriving) is arriving


def test_a_folder_says_how_images_are_normalised(tmp_path):
    save_transformers(IN_TRANSFORMERS['dinov2'], tmp_path)
    with logged() as lines:
        assert FrozenViT(str(tmp_path)).facts.mean[0] == 0.485
    assert any('has no preprocessor_config.json' in line for line in lines)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(dict(
        image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.5, 0.5])))
    with logged() as lines:
        assert FrozenViT(str(tmp_path)).facts.mean == (0.1, 0.2, 0.3)
    assert not any('has no preprocessor_config.json' in line for line in lines)


def test_only_the_pyramid_is_trained():
    backbone = FrozenViT('vit_small_patch14_dinov2', overrides=dict(SIZES, depth=4), with_fpn=True,
                         out_indices=[0, 1, 2, 3]).train()
    assert not any(module.training for module in backbone.model.modules())
    images = torch.randn(1, 3, 28, 42)
    maps = backbone(images)
    assert [tuple(x.shape[2:]) for x in maps] == [(8, 12), (4, 6), (2, 3), (1, 1)]
    sum(x.sum() for x in maps).backward()
    assert {name.partition('.')[0] for name, p in backbone.named_parameters()
            if p.grad is not None} == {'up1', 'up2'}
    features = backbone.frozen_features(images)
    assert [tuple(x.shape[1:]) for x in features] == backbone.frozen_feature_shapes(28, 42)
    for given, computed in zip(backbone(features), maps, strict=True):
        torch.testing.assert_close(given, computed)


def test_layers_behind_the_last_one_do_not_run(tmp_path):
    save_transformers(IN_TRANSFORMERS['deit'], tmp_path)
    for backbone, layers in (
            (FrozenViT('vit_small_patch14_dinov2', overrides=SIZES, out_indices=[1]), 'blocks'),
            (FrozenViT(str(tmp_path), out_indices=[1]), 'layers')):
        for i, layer in enumerate(getattr(backbone.model.vit, layers)):
            layer.register_forward_hook(lambda *_, i=i: pytest.fail('it runs') if i > 1 else None)
        backbone(images_for(backbone))


@pytest.mark.parametrize(('options', 'message'), [
    (dict(name='vit_smal_patch14_dinov2'), "no such network .did you mean 'vit_small_patch14_dino"),
    (dict(name='vit_small_patch14_dinov2.lvd'), "no weights 'lvd'.*expected one of lvd142m"),
    (dict(name='facebook/dinov2-base'), 'nothing is downloaded here.*hf download facebook/dinov2-'),
    (dict(name='./none/dinov2-base'), r'hf download NAME --local-dir \./none/dinov2-base'),
    (dict(name='resnet18', pretrained='x.pth', overrides={}),
     r'is a ResNet, which has no patch grid .*\(strides 2, 4, 8'),
    (dict(name='swin_tiny_patch4_window7_224', pretrained='x.pth', overrides={}),
     'is a SwinTransformer, which has no patch grid'),
    (dict(name='vit_small_patch14_dinov2', overrides=dict(deep=3)), "argument.* 'deep'"),
    (dict(out_indices=[3]), r'out_indices \[3\]: expected .* between 0 and depth - 1 = 2'),
    (dict(out_indices=[0], with_fpn=True), 'exactly 4 feature maps, not 1'),
    (dict(freeze_vit=False), 'freeze_vit=False: a FrozenViT is frozen as it is'),
    (dict(train_last=2), 'train_last=2: a FrozenViT is frozen as it is; InternViT6B alone'),
    (dict(frozen_dtype='int8'), "frozen_dtype='int8': a FrozenViT is frozen as it is"),
    (dict(out_indexes=[0]), "did you mean 'out_indices'"),
    (dict(overrides=dict(SIZES, patch_size=(16, 8))),
     'has patches of 16x8 pixels: expected square'),
    (dict(pretrained='none.pth'), 'pretrained file none.pth does not exist'),
])
def test_options_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message):
        FrozenViT(**{**dict(name='vit_small_patch14_dinov2', overrides=SIZES), **options})


@pytest.mark.parametrize(('config', 'message'), [
    (None, 'is a folder without config.json'),
    (dict(model_type='intern_vit_6b', auto_map={}), "those of model.backbone.type='InternViT6B'"),
    (dict(model_type='own', auto_map={}), "'own' is none of transformers, and code of a folder is"),
    ([], 'is none of transformers'),
    (dict(model_type=['dinov2']), 'is none of transformers'),
    (dict(architecture='vit_smal_patch14_dinov2'), "did you mean 'vit_small_patch14_dinov2'"),
    (dict(model_type=['vit']), 'is none of transformers'),
    (dict(ViTConfig(**SMALL).to_dict(), num_attention_heads=-1), 'which has no patch grid'),
    (dict(ViTConfig(**SMALL).to_dict(), num_channels=4), 'num_channels=4: expected 3'),
    (dict(ViTConfig(**SMALL).to_dict(), image_size=0), r'image_size=\(0, 0\): expected 16 or'),
    (dict(model_type='bert'), 'is a bert, which has no patch grid'),
    (SwinConfig().to_dict(), 'is a swin, which has no patch grid'),
    (ViTMAEConfig().to_dict(), "use timm's vit_base_patch16_224.mae"),
    (AltCLIPVisionConfig(**SMALL).to_dict(), "AutoModel has no network for 'altclip_vision_model'"),
    (dict(ViTConfig(**SMALL).to_dict(), hidden_act='none'), 'transformers cannot build the'),
])
def test_folders_are_refused_in_one_line(config, message, tmp_path):
    if config is not None:
        (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        FrozenViT(str(tmp_path))


@pytest.mark.parametrize(('overrides', 'message'), [
    (dict(depth=2), "a config of dinov2 has no 'depth'"),
    (dict(num_hidden_layers='2'), "a config of dinov2 does not take num_hidden_layers='2': "),
])
def test_overrides_of_a_folder_are_refused_in_one_line(overrides, message, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(IN_TRANSFORMERS['dinov2'].to_dict()))
    with pytest.raises(InputError, match=message):
        FrozenViT(str(tmp_path), overrides=overrides)


def test_a_tower_with_all_images_in_one_sequence_is_refused(tmp_path):
    config = PixtralVisionConfig(**SMALL, **MLP, patch_size=16, image_size=64)
    (tmp_path / 'config.json').write_text(json.dumps(config.to_dict()))
    with pytest.raises(InputError, match=r'returns \(1, 12, 48\): expected \(2, 6 or more, 48\)'):
        FrozenViT(str(tmp_path)).float()(torch.zeros(2, 3, 32, 48))


@pytest.mark.parametrize(('name', 'size', 'message'), [
    ('vit_small_patch14_dinov2', (28, 30), 'of 28x30 pixels: expected multiples of the 14-pixel'),
    ('beit_base_patch16_224', (32, 32), 'of 32x32 pixels: beit_base_.* takes 224x224 alone'),
])
def test_sizes_are_refused_in_one_line(name, size, message):
    with pytest.raises(InputError, match=message):
        FrozenViT(name, overrides=SIZES)(torch.zeros(1, 3, *size))


def test_a_head_in_the_file_is_left_aside(tmp_path):
    weights = in_timm('vit_small_patch14_dinov2').state_dict()
    weights['head.weight'] = torch.zeros(3, 48)
    torch.save(weights, tmp_path / 'weights.pth')
    with logged() as lines:
        backbone = FrozenViT('vit_small_patch14_dinov2', str(tmp_path / 'weights.pth'),
                             overrides=SIZES)
    assert any('left aside 1 tensors that no feature map needs: 1 x head.*' in line
               for line in lines)
    assert 'model.vit.head.weight' not in backbone.state_dict()


@pytest.mark.parametrize(('change', 'message'), [
    (lambda weights: weights.pop('blocks.1.norm1.weight'),
     r'does not fit the model: missing: model.vit.blocks.1.norm1.weight'),
    (lambda weights: weights.update(extra=torch.zeros(1)), 'unexpected: model.vit.extra'),
    (lambda weights: weights.update(pos_embed=torch.zeros(1, 17, 48)),
     r'another architecture .*: pos_embed has shape \(1, 17, 48\), expected \(1, 1370, 48\)'),
])
def test_other_weights_are_refused(change, message, tmp_path):
    weights = in_timm('vit_small_patch14_dinov2').state_dict()
    change(weights)
    torch.save(weights, tmp_path / 'weights.pth')
    with pytest.raises(InputError, match=message):
        FrozenViT('vit_small_patch14_dinov2', str(tmp_path / 'weights.pth'), overrides=SIZES)


def test_a_vision_tower_is_found_in_a_larger_model(tmp_path):
    vision = IN_TRANSFORMERS['siglip']
    tower = draw(AutoModel.from_config(vision))
    tensors = {f'vision_model.{name}': tensor for name, tensor in tower.state_dict().items()}
    torch.save({**tensors, 'text_model.final': torch.zeros(2)}, tmp_path / 'pytorch_model.bin')
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        model_type='siglip', vision_config=vision.to_dict(), text_config={})))
    backbone = FrozenViT(str(tmp_path))
    name = 'embeddings.patch_embedding.weight'
    assert torch.equal(backbone.model.vit.state_dict()[name].float(), tower.state_dict()[name])


def test_a_folder_of_timm_is_built_by_its_architecture(tmp_path):
    torch.save(in_timm('vit_small_patch14_dinov2').state_dict(), tmp_path / 'pytorch_model.bin')
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        architecture='vit_small_patch14_dinov2', model_args=SIZES,
        pretrained_cfg=dict(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]))))
    facts = FrozenViT(str(tmp_path)).facts
    assert facts.architecture == 'vit_small_patch14_dinov2 of timm'
    assert (facts.mean, facts.depth) == ((0.1, 0.2, 0.3), 3)


@pytest.mark.parametrize(('content', 'mean'), [
    (dict(pretrained_cfg=dict(tag='lvd142m')), 0.485),
    (dict(pretrained_cfg=dict(tag='own', mean=['x', 1, 2], std=5)), 0.485),
    (dict(pretrained_cfg=5), None),
    (dict(model_args=[1]), None),
])
def test_what_a_folder_of_timm_says_is_checked(content, mean, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        architecture='vit_small_patch14_dinov2', **content)))
    if mean is None:
        with pytest.raises(InputError, match='expected objects'):
            FrozenViT(str(tmp_path), overrides=SIZES)
    else:
        assert FrozenViT(str(tmp_path), overrides=SIZES).own_mean[0] == mean


def test_weights_are_shared_with_another_backbone():
    whole = FrozenViT('vit_small_patch14_dinov2', overrides=SIZES, out_indices=[0, 2])
    part = FrozenViT('vit_small_patch14_dinov2', whole, overrides=SIZES, out_indices=[0])
    images = torch.randn(1, 3, 28, 28)
    assert torch.equal(part(images)[0], whole(images)[0])
    assert part.model is whole.model


def test_nothing_is_computed_for_what_a_file_brings():
    with torch.device('meta'):
        backbone = FrozenViT('vit_small_patch16_dinov3', overrides=SIZES)
    assert all(p.is_meta for p in backbone.model.parameters())
    assert not any(buffer.is_meta for buffer in backbone.buffers())  # no file has these


def test_a_config_says_by_the_name_what_the_network_is(tmp_path):
    options = dict(type='FrozenViT', name='vit_small_patch14_dinov2', overrides=dict(SIZES))
    values = [backbone_option(options, name) for name in (
        'embed_dim', 'patch_size', 'depth', 'img_size', 'out_indices', 'freeze_vit', 'pretrained',
        'final_norm', 'train_last')]
    assert values == [48, 14, 3, 518, [2], True, None, False, None]
    save_transformers(IN_TRANSFORMERS['dinov2'], tmp_path)
    folder = dict(type='FrozenViT', name=str(tmp_path))
    assert backbone_option(folder, 'pretrained') == str(tmp_path)
    assert facts_of(str(tmp_path)).record.startswith('dinov2 of transformers, config ')


def test_random_weights_are_told():
    with logged() as lines:
        FrozenViT('vit_small_patch14_dinov2', overrides=SIZES)
    assert any('has random weights' in line for line in lines)
