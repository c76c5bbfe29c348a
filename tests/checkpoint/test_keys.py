import pytest
from helpers.tiny_networks import FAMILIES, tiny
from transformers import InternVLVisionConfig, InternVLVisionModel

from mmseg_custom.checkpoint.keys import (
    CLIP_PROJECTOR,
    DIALECTS,
    NATIVE,
    REMOTE_CODE,
    TRANSFORMERS,
    Architecture,
    describe_mismatch,
    find_network,
    summarize,
    to_native,
)
from mmseg_custom.errors import InputError

REMOTE_CODE_NAMES = {  # read off the files on the hub: InternViT-6B-448px-V1-5, InternViT-300M
    'embeddings.class_embedding': 'cls_token',
    'embeddings.patch_embedding.bias': 'patch_embed.proj.bias',
    'embeddings.patch_embedding.weight': 'patch_embed.proj.weight',
    'embeddings.position_embedding': 'pos_embed',
    'encoder.layers.44.attn.k_norm.weight': 'blocks.44.attn.k_norm.weight',
    'encoder.layers.44.attn.proj.bias': 'blocks.44.attn.proj.bias',
    'encoder.layers.44.attn.q_norm.weight': 'blocks.44.attn.q_norm.weight',
    'encoder.layers.44.attn.qkv.bias': 'blocks.44.attn.qkv.bias',
    'encoder.layers.44.attn.qkv.weight': 'blocks.44.attn.qkv.weight',
    'encoder.layers.44.ls1': 'blocks.44.ls1.gamma',
    'encoder.layers.44.ls2': 'blocks.44.ls2.gamma',
    'encoder.layers.44.mlp.fc1.weight': 'blocks.44.mlp.fc1.weight',
    'encoder.layers.44.mlp.fc2.bias': 'blocks.44.mlp.fc2.bias',
    'encoder.layers.44.norm1.bias': 'blocks.44.norm1.bias',
    'encoder.layers.44.norm2.weight': 'blocks.44.norm2.weight',
}


def hub_model(family: str) -> InternVLVisionModel:
    return InternVLVisionModel(InternVLVisionConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128,
        image_size=56, norm_type='rms_norm' if family == '6b' else 'layer_norm',
        use_qk_norm=family == '6b', attention_bias=family == '300m'))


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('dialect', DIALECTS, ids=lambda dialect: dialect.name)
def test_every_name_goes_there_and_back(dialect, family):
    native = list(tiny(family).state_dict())
    there = [name for parts in map(dialect.translate, native) for name in parts]
    assert len(set(there)) == len(there)
    sources, unknown = to_native(dialect, there)
    assert unknown == []
    assert {name: dialect.translate(name) for name in native} == sources


@pytest.mark.parametrize('family', FAMILIES)
def test_transformers_has_just_these_names(family):
    native = tiny(family).state_dict()
    names = {name for parts in map(TRANSFORMERS.translate, native) for name in parts}
    assert names == set(hub_model(family).state_dict())


def test_the_names_of_the_remote_code_are_pinned():
    sources, unknown = to_native(REMOTE_CODE, REMOTE_CODE_NAMES)
    assert unknown == []
    assert {name: native for native, (name,) in sources.items()} == REMOTE_CODE_NAMES


def test_q_without_k_and_v_is_no_qkv():
    names = ['encoder.layer.0.attention.q_proj.weight', 'encoder.layer.0.attention.v_proj.weight']
    assert to_native(TRANSFORMERS, names) == ({}, names)


def test_a_block_parameter_outside_of_a_block_is_unknown():
    assert to_native(NATIVE, ['norm1.weight', 'blocks.0.cls_token']) == (
        {}, ['blocks.0.cls_token', 'norm1.weight'])


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.', 'module.backbone.',
                                    'vision_model.', 'vision_tower.', 'model.vision_tower.'])
@pytest.mark.parametrize('dialect', DIALECTS, ids=lambda dialect: dialect.name)
def test_the_network_is_found_under_any_prefix(prefix, dialect):
    names = [prefix + dialect.anchor, 'language_model.lm_head.weight']
    assert find_network(names, 'x.pth') == (dialect, prefix)


def test_two_networks_are_refused_by_their_prefixes():
    names = [f'{who}.backbone.{NATIVE.anchor}' for who in ('student', 'teacher')]
    with pytest.raises(InputError, match="'student.backbone.', 'teacher.backbone.'"):
        find_network(names, 'x.pth')


def test_a_file_of_another_model_is_named():
    with pytest.raises(InputError, match=r'r50.pth is not an InternViT.*1 x conv1\.\*'):
        find_network(['conv1.weight', 'layer1.0.bn1.weight'], 'r50.pth')
    with pytest.raises(InputError, match='fcn.pth is not an InternViT'):
        find_network(['backbone.conv1.weight', 'decode_head.conv_seg.weight'], 'fcn.pth')


@pytest.mark.parametrize('names', [[], ['backbone.blocks.47.norm1.weight', 'backbone.pos_embed']])
def test_a_checkpoint_without_its_backbone_is_to_be_merged(names):
    with pytest.raises(InputError, match=r'iter_1.pth is the checkpoint of a segmentor without its '
                       r'backbone.*merge_checkpoint.py iter_1.pth merged.pth'):
        find_network(['decode_head.conv_seg.weight', *names], 'iter_1.pth')


@pytest.mark.parametrize('family', FAMILIES)
def test_the_architecture_is_read_off_names_and_shapes(family):
    shapes = {name: tuple(t.shape) for name, t in tiny(family).state_dict().items()}
    it = Architecture.of(shapes)
    assert it == Architecture(
        embed_dim=32, depth=3, patch_size=14, in_chans=3, mlp_ratio=4.0, layer_scale=True,
        qkv_bias=family == '300m', qk_normalization=family == '6b',
        norm_type='rms_norm' if family == '6b' else 'layer_norm')
    deeper = Architecture(**{**it.__dict__, 'depth': 48})
    assert it.differences(deeper) == {'depth': (3, 48)}


def test_a_mismatch_names_the_nearest_and_folds_blocks():
    missing = [f'blocks.{i}.ls1.gamma' for i in range(48)] + ['cls_token']
    unexpected = [f'blocks.{i}.ls1.gama' for i in range(48)] + ['blocks.7.extra']
    text = describe_mismatch(missing, unexpected)
    assert 'missing: blocks.*.ls1.gamma (48 blocks, 0 to 47) (nearest: blocks.*.ls1.gama)' in text
    assert 'blocks.7.extra' in text and 'cls_token' in text
    assert '\n' not in text


def test_there_are_14_clip_projector_names():
    assert len(CLIP_PROJECTOR) == 14
    assert 'clip_projector.cross_attn.q_bias' in CLIP_PROJECTOR


def test_summaries_are_short():
    assert summarize(['a.b', 'a.c', 'd']) == '2 x a.*, 1 x d'
    assert summarize(f'x{i}' for i in range(20)).endswith('...')
