import json
import os

import pytest
import torch
from helpers.tiny_networks import FAMILIES, same, tiny, write_flat
from safetensors.torch import load_file
from transformers import AutoModel, InternVLVisionConfig, InternVLVisionModel

from mmseg_custom.checkpoint.convert import convert, form_of
from mmseg_custom.errors import InputError


def features(hub: InternVLVisionModel, images: torch.Tensor, block: int) -> torch.Tensor:
    """The map after a block, of transformers' model: (B, D, h, w)."""
    with torch.no_grad():
        tokens = hub(images, output_hidden_states=True).hidden_states[block + 1]
    side = images.shape[-1] // 14
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize('family', FAMILIES)
def test_from_transformers_to_us(family, tmp_path):
    """A model made by transformers gives the same feature maps here, from every block."""
    hub = InternVLVisionModel(InternVLVisionConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128,
        image_size=56, norm_type='rms_norm' if family == '6b' else 'layer_norm',
        use_qk_norm=family == '6b', attention_bias=family == '300m')).eval()
    for parameter in hub.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    hub.save_pretrained(tmp_path / 'hub', max_shard_size='50KB')
    model = tiny(family, pretrained=str(tmp_path / 'hub'), out_indices=[0, 1, 2]).float()
    model.load_state_dict(_in_float(family, tmp_path))
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        outputs = model(images)
    for block, ours in enumerate(outputs):
        torch.testing.assert_close(ours, features(hub, images, block), rtol=1e-5, atol=1e-5)


def _in_float(family: str, tmp_path) -> dict:
    """The weights of the folder as it is: the backbone itself rounds to bfloat16."""
    path = str(tmp_path / 'native.safetensors')
    convert(str(tmp_path / 'hub'), path, 'safetensors')
    return load_file(path)


@pytest.mark.parametrize('size', [56, 84])
@pytest.mark.parametrize('family', FAMILIES)
def test_from_us_to_transformers(family, size, tmp_path):
    """File -> ours -> folder -> transformers: the same feature maps, at any size of image."""
    model = tiny(family)
    torch.save(model.state_dict(), tmp_path / 'ours.pth')
    convert(str(tmp_path / 'ours.pth'), str(tmp_path / 'hub'), 'hf', num_heads=2,
            shard_bytes=60_000)
    assert len(list((tmp_path / 'hub').glob('model-*.safetensors'))) > 2
    hub, report = InternVLVisionModel.from_pretrained(tmp_path / 'hub', output_loading_info=True)
    assert not any(report.values())
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        ours = model(images)[0]
    torch.testing.assert_close(ours, features(hub.eval(), images, 2), rtol=1e-5, atol=1e-5)


def test_the_folder_says_its_dtype_and_class(tmp_path):
    convert(write_flat(tmp_path), str(tmp_path / 'hub'), 'hf', num_heads=2)
    hub = AutoModel.from_pretrained(tmp_path / 'hub')
    assert type(hub) is InternVLVisionModel and hub.dtype == torch.bfloat16


@pytest.mark.parametrize('family', FAMILIES)
def test_round_trip_over_all_forms_is_exact(family, tmp_path):
    original = tiny(family).bfloat16().state_dict()
    torch.save(original, tmp_path / '0.pth')
    steps = [('0.pth', '1.safetensors', 'safetensors'), ('1.safetensors', '2', 'hf'),
             ('2', '3.pth', 'pth')]
    for source, target, form in steps:
        convert(str(tmp_path / source), str(tmp_path / target), form,
                num_heads=2 if form == 'hf' else None)
    read = torch.load(tmp_path / '3.pth')
    assert same(read, original)


@pytest.mark.parametrize('form', ['pth', 'safetensors', 'hf'])
def test_dtype(form, tmp_path):
    target = str(tmp_path / 'out')
    convert(write_flat(tmp_path), target, form, dtype=torch.float16, num_heads=2)
    tensors = (torch.load(target) if form == 'pth' else
               load_file(target + '/model.safetensors' if form == 'hf' else target))
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    if form == 'hf':
        assert AutoModel.from_pretrained(target).dtype == torch.float16


def test_the_pyramid_goes_into_files_and_not_into_folders(tmp_path):
    model = tiny(with_fpn=True, depth=4, out_indices=[0, 1, 2, 3])
    torch.save(model.state_dict(), tmp_path / 'x.pth')
    convert(str(tmp_path / 'x.pth'), str(tmp_path / 'y.pth'), 'pth')
    assert set(torch.load(tmp_path / 'y.pth')) == set(model.state_dict())
    convert(str(tmp_path / 'x.pth'), str(tmp_path / 'hub'), 'hf', num_heads=2)
    _, report = InternVLVisionModel.from_pretrained(tmp_path / 'hub', output_loading_info=True)
    assert not any(report.values())


@pytest.mark.parametrize('nested', [False, True])
def test_heads_come_from_the_sources_own_config(nested, tmp_path):
    convert(write_flat(tmp_path), str(tmp_path / 'hub'), 'hf', num_heads=4)
    if nested:
        path = tmp_path / 'hub' / 'config.json'
        path.write_text(json.dumps(dict(vision_config=json.loads(path.read_text()))))
    convert(str(tmp_path / 'hub'), str(tmp_path / 'again'), 'hf')
    config = json.loads((tmp_path / 'again' / 'config.json').read_text())
    assert config['num_attention_heads'] == 4


@pytest.mark.parametrize('heads', [None, 5])
def test_unknown_heads_are_asked_for(heads, tmp_path):
    with pytest.raises(InputError, match='give --num-heads'):
        convert(write_flat(tmp_path), str(tmp_path / 'hub'), 'hf', num_heads=heads)
    assert not os.path.exists(tmp_path / 'hub')


def test_the_published_networks_need_no_heads(tmp_path):
    path = str(tmp_path / '300m.pth')
    model = tiny('300m', embed_dim=1024, num_heads=16, depth=1, out_indices=[0])
    torch.save(model.state_dict(), path)
    convert(path, str(tmp_path / 'hub'), 'hf')
    config = json.loads((tmp_path / 'hub' / 'config.json').read_text())
    assert config['num_attention_heads'] == 16 and config['norm_type'] == 'layer_norm'
    assert config['image_size'] == [56, 56] and config['num_hidden_layers'] == 1


def test_what_transformers_cannot_hold_is_refused(tmp_path):
    torch.save(tiny(init_values=0).state_dict(), tmp_path / 'x.pth')
    with pytest.raises(InputError, match='transformers has no InternVLVisionModel without layer'):
        convert(str(tmp_path / 'x.pth'), str(tmp_path / 'hub'), 'hf', num_heads=2)


def test_an_existing_target_is_left_alone(tmp_path):
    path = write_flat(tmp_path)
    with pytest.raises(InputError, match='flat.pth exists'):
        convert(path, path, 'pth')


def test_strangers_in_the_network_are_refused(tmp_path):
    weights = {**tiny().state_dict(), 'blocks.0.attn.relative_bias': torch.ones(1)}
    torch.save(weights, tmp_path / 'x.pth')
    with pytest.raises(InputError, match='blocks.0.attn.relative_bias'):
        convert(str(tmp_path / 'x.pth'), str(tmp_path / 'y.pth'), 'pth')


@pytest.mark.parametrize('missing', ['pos_embed', 'blocks.1.ls1.gamma', 'blocks.0'])
def test_an_incomplete_file_is_refused(missing, tmp_path):
    weights = {name: t for name, t in tiny().state_dict().items() if not name.startswith(missing)}
    torch.save(weights, tmp_path / 'x.pth')
    with pytest.raises(InputError, match=f'is no complete InternViT: missing: {missing}'):
        convert(str(tmp_path / 'x.pth'), str(tmp_path / 'y.pth'), 'pth')


def test_a_file_without_blocks_is_refused(tmp_path):
    weights = {name: t for name, t in tiny().state_dict().items() if 'blocks' not in name}
    torch.save(weights, tmp_path / 'x.pth')
    with pytest.raises(InputError, match='it has no blocks'):
        convert(str(tmp_path / 'x.pth'), str(tmp_path / 'hub'), 'hf', num_heads=2)


def test_nan_leaves_nothing_behind(tmp_path):
    weights = tiny().state_dict()
    weights['blocks.1.mlp.fc1.weight'][0] = float('nan')
    torch.save(weights, tmp_path / 'x.pth')
    for target, form in (('y.pth', 'pth'), ('y.safetensors', 'safetensors'), ('hub', 'hf')):
        with pytest.raises(InputError, match='blocks.1.mlp.fc1.weight holds NaN'):
            convert(str(tmp_path / 'x.pth'), str(tmp_path / target), form, num_heads=2,
                    check_finite=True)
    assert os.listdir(tmp_path) == ['x.pth']


@pytest.mark.parametrize('name, form', [
    ('x.pth', 'pth'), ('a/x.pt', 'pth'), ('x.bin', 'pth'), ('x.safetensors', 'safetensors'),
    ('hub', 'hf'), ('hub/', 'hf')])
def test_the_ending_says_the_form(name, form):
    assert form_of(name) == form


def test_an_ending_that_says_nothing():
    with pytest.raises(InputError, match="'.onnx'"):
        form_of('x.onnx')
