"""Folders of peft, beside peft itself on transformers' InternVLVisionModel."""
import json
import os
from functools import partial

import pytest
import torch
from helpers.adapters import adapted, features, save
from helpers.tiny_networks import FAMILIES, SIZE, Segmentor, tiny
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import InternVLVisionModel

from mmseg_custom.checkpoint.convert import convert
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.checkpoint.peft_folder import read_adapter_folder
from mmseg_custom.errors import InputError
from mmseg_custom.layers.lora import is_adapter

close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-5)


def write_backbone(tmp_path, family: str) -> tuple[str, InternVLVisionModel]:
    """Writes a backbone's file; returns its path, and transformers' model of the same weights."""
    flat = str(tmp_path / 'flat.pth')
    torch.save(tiny(family).bfloat16().state_dict(), flat)
    convert(flat, str(tmp_path / 'hub'), 'hf', dtype=torch.float32, num_heads=2)
    return flat, InternVLVisionModel.from_pretrained(tmp_path / 'hub').eval()


def hub_features(model) -> torch.Tensor:
    """The feature map of the last block, of the images that ``features`` takes."""
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = model(pixel_values=images, output_hidden_states=True).hidden_states[3]
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


@pytest.mark.parametrize('family, options', [
    ('6b', {}), ('300m', dict(use_dora=True)), ('6b', dict(blocks=[0, 2], targets=['qkv', 'fc2']))],
    ids=['all', 'dora', 'some blocks'])
def test_peft_loads_what_is_written(family, options, tmp_path):
    """Onto transformers' model of the same weights; feature maps are equal in float32."""
    flat, hub = write_backbone(tmp_path, family)
    model = adapted(flat, **options, backbone=FAMILIES[family])
    merge(save(model, tmp_path), str(tmp_path / 'adapters') + '/')
    assert sorted(os.listdir(tmp_path / 'adapters')) == [
        'adapter_config.json', 'adapter_model.safetensors']
    before = hub_features(hub)
    with_adapters = PeftModel.from_pretrained(hub, tmp_path / 'adapters')
    close(hub_features(with_adapters), features(model))
    assert (hub_features(with_adapters) - before).abs().max() > 0.1
    written = load_file(tmp_path / 'adapters/adapter_model.safetensors')
    place = 'base_model.model.encoder.layer.0.attention'
    assert torch.equal(written[f'{place}.q_proj.lora_A.weight'],
                       written[f'{place}.v_proj.lora_A.weight'])


@pytest.mark.parametrize('options, rank', [
    (dict(target_modules=['q_proj', 'k_proj', 'v_proj', 'projection_layer', 'fc1', 'fc2']), 6),
    (dict(target_modules=['q_proj', 'v_proj'], use_dora=True), 4),
    (dict(target_modules=['q_proj', 'v_proj', 'fc1'], use_rslora=True,
          rank_pattern={'q_proj': 3}), 5),
    (dict(target_modules=['k_proj'], layers_to_transform=[1], layers_pattern='layer'), 2)],
    ids=['all', 'dora', 'rank-stabilised', 'one block'])
def test_what_peft_trained_is_read(options, rank, tmp_path):
    """q, k and v have adapters of their own there; a run starts from them, or they are merged."""
    flat, hub = write_backbone(tmp_path, '6b')
    theirs = get_peft_model(hub, LoraConfig(r=2, lora_alpha=5, lora_dropout=0.1, **options))
    for name, parameter in theirs.named_parameters():
        if is_adapter(name):
            torch.nn.init.normal_(parameter.data, 1 if 'magnitude' in name else 0, 0.2)
    theirs.eval().save_pretrained(tmp_path / 'adapters')
    wanted = hub_features(theirs)
    adapt = dict(type='lora', r=rank, alpha=7, use_dora=options.get('use_dora', False),
                 pretrained=str(tmp_path / 'adapters'))
    close(features(Segmentor(pretrained=flat, adapt=adapt)), wanted)
    with pytest.raises(InputError, match=f'set model.backbone.adapt.r={rank} or more'):
        Segmentor(pretrained=flat, adapt=dict(adapt, r=rank - 1))
    merge(str(tmp_path / 'adapters'), str(tmp_path / 'merged.pth'), flat)
    whole = Segmentor()
    whole.float().backbone.load_state_dict(torch.load(tmp_path / 'merged.pth'))
    close(features(whole), wanted)


def test_names_of_the_networks_own_code(tmp_path):
    """Fused q, k, v, as InternViT's code on the hub has it, within a vision-language model."""
    weights = {f'base_model.model.vision_model.encoder.layers.{i}.attn.qkv.lora_{part}.weight':
               torch.randn(*shape) for i in (0, 1) for part, shape in (('A', (2, 8)),
                                                                       ('B', (24, 2)))}
    write_folder(tmp_path, weights)
    given = read_adapter_folder(str(tmp_path))
    assert list(given.adapters) == ['blocks.0.attn.qkv', 'blocks.1.attn.qkv']
    assert given.adapters['blocks.0.attn.qkv'].factor == 2 and given.base is None


def write_folder(folder, weights: dict, **settings) -> None:
    config = {**dict(peft_type='LORA', r=2, lora_alpha=4, target_modules=['fc1']), **settings}
    (folder / 'adapter_config.json').write_text(json.dumps(config))
    save_file(weights, folder / 'adapter_model.safetensors')


def fc1(part: str, *shape: int) -> dict:
    return {f'base_model.model.encoder.layer.0.mlp.fc1.lora_{part}': torch.zeros(*shape)}


ONE = {**fc1('A.weight', 2, 8), **fc1('B.weight', 32, 2)}


@pytest.mark.parametrize('settings, says', [
    (dict(peft_type='ADALORA'), "peft_type is 'ADALORA': adapters here are LORA"),
    (dict(lora_bias=True), 'lora_bias is True, which is not supported here'),
    (dict(bias='all'), "bias is 'all'"),
    (dict(modules_to_save=['head']), r"modules_to_save is \['head'\]"),
    (dict(alpha_pattern=dict(fc1=3)), 'alpha_pattern is'),
    (dict(init_lora_weights='pissa'), "init_lora_weights is 'pissa'"),
    (dict(a_setting_to_come=dict(x=1)), 'a_setting_to_come is'),
    (dict(r=3), 'lora_A.weight has rank 2, but adapter_config.json says r=3'),
    (dict(r=0), 'r: 0, expected a whole number of 1 or more'),
    (dict(lora_alpha=None), 'lora_alpha: None'),
    (dict(use_dora=True), 'lora_magnitude_vector of blocks.0.mlp.fc1 is missing')])
def test_settings_that_are_not_supported(settings, says, tmp_path):
    write_folder(tmp_path, ONE, **settings)
    with pytest.raises(InputError, match=says):
        read_adapter_folder(str(tmp_path))


@pytest.mark.parametrize('weights, says', [
    (fc1('A.weight', 2, 8), 'lora_B of blocks.0.mlp.fc1 is missing'),
    ({**ONE, **fc1('B.bias', 32)}, 'found .*fc1.lora_B.bias'),
    ({**ONE, **fc1('magnitude_vector', 32)}, 'lora_magnitude_vector .* is there without use_dora'),
    ({**fc1('A.weight', 2, 8), **fc1('B.weight', 32, 3)}, r'have shapes \(2, 8\), \(32, 3\)'),
    ({**fc1('A.weight', 0, 8), **fc1('B.weight', 32, 0)}, r'have shapes \(0, 8\), \(32, 0\)'),
    ({name: tensor.to(torch.int8) for name, tensor in ONE.items()}, 'of floating point'),
    ({**ONE, 'blocks.0.mlp.fc1.lora_A.weight': torch.zeros(2, 8)}, 'more than one network'),
    ({'base_model.model.layers.0.self_attn.o_proj.lora_A.weight': torch.zeros(2, 8)},
     'expected adapters of linear layers in blocks of an InternViT .* found .*o_proj')])
def test_tensors_that_are_not_understood(weights, says, tmp_path):
    write_folder(tmp_path, weights)
    with pytest.raises(InputError, match=says):
        read_adapter_folder(str(tmp_path))


@pytest.mark.parametrize('key, value, says', [
    ('base', '{', 'its metadata is damaged'), ('base', '[]', 'base in its metadata is .*a dict'),
    ('base', '{"path": 1}', 'base in its metadata.path is 1: expected text'),
    ('frozen_dtype', '"int4"', "frozen_dtype in its metadata is 'int4': expected one of int8")])
def test_damaged_metadata(key, value, says, tmp_path):
    write_folder(tmp_path, ONE)
    save_file(ONE, tmp_path / 'adapter_model.safetensors', metadata={key: value})
    with pytest.raises(InputError, match=says):
        read_adapter_folder(str(tmp_path))


def test_a_folder_without_its_weights(tmp_path):
    write_folder(tmp_path, ONE)
    os.remove(tmp_path / 'adapter_model.safetensors')
    with pytest.raises(InputError, match='lacks adapter_model.safetensors: copy the whole folder'):
        read_adapter_folder(str(tmp_path))


def test_the_old_form_of_the_weights(tmp_path):
    write_folder(tmp_path, ONE)
    os.remove(tmp_path / 'adapter_model.safetensors')
    torch.save(ONE, tmp_path / 'adapter_model.bin')
    assert list(read_adapter_folder(str(tmp_path)).adapters) == ['blocks.0.mlp.fc1']


def test_merging_asks_for_the_backbone(tmp_path):
    write_folder(tmp_path, ONE)
    with pytest.raises(InputError, match='does not say which backbone .*: give --backbone FILE'):
        merge(str(tmp_path), str(tmp_path / 'merged.pth'))
    with pytest.raises(InputError, match='blocks.0.mlp.fc1 that do not fit .*flat.pth'):
        torch.save(tiny().state_dict(), tmp_path / 'flat.pth')
        merge(str(tmp_path), str(tmp_path / 'merged.pth'), str(tmp_path / 'flat.pth'))
    assert SIZE['embed_dim'] != 8 and not os.path.exists(tmp_path / 'merged.pth')


def test_the_base_and_its_8_bits_are_recorded(tmp_path):
    flat, _ = write_backbone(tmp_path, '6b')
    model = adapted(flat, backbone=dict(frozen_dtype='int8'))
    merge(save(model, tmp_path), str(tmp_path / 'adapters'))
    given = read_adapter_folder(str(tmp_path / 'adapters'))
    assert given.base['path'] == flat and given.frozen_dtype == 'int8'
    merge(str(tmp_path / 'adapters'), str(tmp_path / 'merged.pth'))  # finds the file by itself
    whole = Segmentor().float()
    whole.backbone.load_state_dict(torch.load(tmp_path / 'merged.pth'))
    close(features(whole), features(model))
