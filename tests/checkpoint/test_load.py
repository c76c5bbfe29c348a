import json
import logging
import os
import pickle
import sys

import mmseg_custom  # noqa: F401  (registers, before mmseg)

# isort: split
import pytest
import torch
import torch.nn.functional as F
from helpers.logs import logged
from helpers.tiny_networks import FAMILIES, SIZE, same, tiny, write_flat
from helpers.weight_forms import FORMS, renamed, write_folder, write_form
from mmseg.models.builder import build_backbone
from safetensors.torch import save_file

from mmseg_custom.checkpoint.keys import CLIP_PROJECTOR, REMOTE_CODE, TRANSFORMERS
from mmseg_custom.checkpoint.load import load_backbone
from mmseg_custom.errors import InputError
from mmseg_custom.models.backbones.intern_vit import InternViT6B


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('form', FORMS)
def test_every_form_loads_bit_by_bit(form, family, tmp_path):
    original = tiny(family).bfloat16().state_dict()
    path = write_form(form, original, tmp_path)
    assert same(tiny(family, pretrained=path).state_dict(), original)


def test_a_model_in_float32_keeps_its_parameters_and_its_dtype(tmp_path):
    path = write_flat(tmp_path)
    model = tiny()
    before = dict(model.named_parameters())
    load_backbone(model, path)
    assert all(before[name] is p and p.dtype == torch.float32
               for name, p in model.named_parameters())
    assert torch.equal(model.cls_token, torch.load(path)['cls_token'].float())


def test_dtype_asks_for_another_one(tmp_path):
    model = tiny(pretrained=write_flat(tmp_path))
    model.requires_grad_(False)
    load_backbone(model, write_flat(tmp_path), dtype=torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(('stored', 'side'), [(56, 126), (448, 504)])  # releases: the second
def test_the_position_embedding_is_resampled_in_float32_then_rounded(stored, side, tmp_path):
    path = str(tmp_path / 'flat.pth')
    torch.save(tiny(img_size=stored).bfloat16().state_dict(), path)
    embedding, before, after = torch.load(path)['pos_embed'].float(), stored // 14, side // 14
    grid = F.interpolate(embedding[:, 1:].reshape(1, before, before, 32).permute(0, 3, 1, 2),
                         size=(after, after), mode='bicubic', align_corners=False)
    wanted = torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(tiny(pretrained=path, img_size=side).pos_embed, wanted.bfloat16())
    in_float = tiny(img_size=side)
    load_backbone(in_float, path)
    assert torch.equal(in_float.pos_embed, wanted)


def test_the_clip_projector_is_left_aside_with_one_line(tmp_path):
    path = str(tmp_path / 'released.pth')
    extra = {name: torch.ones(2) for name in CLIP_PROJECTOR}
    torch.save({**tiny().state_dict(), **extra}, path)
    with logged('test_load') as lines:
        load_backbone(tiny(), path, logger=logging.getLogger('test_load'))
    lines = [line for line in lines if 'left aside' in line]
    assert len(lines) == 1 and '14 tensors' in lines[0] and 'clip_projector' in lines[0]


def test_a_pyramid_keeps_its_initialisation_or_comes_from_the_file(tmp_path):
    options = dict(with_fpn=True, depth=4, out_indices=[0, 1, 2, 3])
    path = str(tmp_path / 'plain.pth')
    torch.save(tiny(depth=4, out_indices=[3]).state_dict(), path)
    model = tiny(pretrained=path, **options)
    assert not any(p.is_meta for p in model.parameters())
    path = str(tmp_path / 'with_pyramid.pth')
    torch.save(model.state_dict(), path)
    assert same(tiny(pretrained=path, **options).state_dict(), model.state_dict())
    with pytest.raises(InputError, match=r'missing: up1.4.bias, .* and 5 more$'):
        tiny(pretrained=path, with_final_norm=True, **options)
    with pytest.raises(InputError, match='unexpected: up1.0.bias'):
        tiny(pretrained=path, depth=4, out_indices=[3])


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
@pytest.mark.parametrize('form', ['flat', 'safetensors'])
def test_tensors_that_fit_are_views_of_the_file(form, tmp_path):
    path = write_form(form, tiny().bfloat16().state_dict(), tmp_path)
    model = tiny(pretrained=path)
    with open('/proc/self/maps') as maps:
        ranges = [[int(end, 16) for end in line.split()[0].split('-')]
                  for line in maps if line.rstrip().endswith(path)]
    assert ranges
    for parameter in model.parameters():
        assert any(start <= parameter.data_ptr() < stop for start, stop in ranges)


@pytest.mark.parametrize('form', ['flat', 'safetensors'])
def test_training_does_not_write_to_the_file(form, tmp_path):
    path = write_form(form, tiny().bfloat16().state_dict(), tmp_path)
    with open(path, 'rb') as file:
        before = file.read()
    with torch.no_grad():
        for parameter in tiny(pretrained=path).parameters():
            parameter.add_(1)
    with open(path, 'rb') as file:
        assert file.read() == before


def test_converting_closes_the_file_and_the_tensors_stay_right(tmp_path):
    torch.manual_seed(0)
    wide = dict(embed_dim=512, num_heads=4)  # 3 blocks of 12.6 MB in float32
    original = tiny(**wide)
    path = str(tmp_path / 'wide.pth')
    torch.save(original.state_dict(), path)
    model = tiny(**wide, pretrained=path)
    assert same(model.state_dict(), original.bfloat16().state_dict())
    for name, tensor in torch.load(path, mmap=True).items():
        assert torch.equal(tensor.bfloat16(), model.get_parameter(name)), name


# What the user may get wrong: each is one line that says what to do.


def refused(path: str, *parts: str, check_finite: bool = False, **options) -> None:
    """Loading must fail with one line that names the file and these parts."""
    with pytest.raises(InputError) as caught:
        load_backbone(InternViT6B(**{**SIZE, **options}), str(path),
                      check_finite=check_finite)
    message = str(caught.value)
    assert '\n' not in message and len(message) < 800
    for part in parts:
        assert part in message, message


def test_missing_file(tmp_path):
    refused(tmp_path / 'no.pth', 'no.pth does not exist', 'model.backbone.pretrained=None')


def test_address():
    refused('https://example.org/x.pth', 'is an address', 'download')


@pytest.mark.parametrize('keep', [0.99, 0.5, 0.01])
@pytest.mark.parametrize('form', ['flat', 'safetensors'])
def test_cut_short(form, keep, tmp_path):
    path = write_form(form, tiny().state_dict(), tmp_path)
    os.truncate(path, int(os.path.getsize(path) * keep))
    refused(path, path, 'cut short')


def test_old_format_cut_short(tmp_path):
    path = write_form('old torch', tiny().state_dict(), tmp_path)
    os.truncate(path, os.path.getsize(path) // 2)
    refused(path, path)


def test_another_architecture(tmp_path):
    path = str(tmp_path / '300m.pth')
    torch.save(tiny('300m', embed_dim=64, depth=4).state_dict(), path)
    refused(path, 'embed_dim=64', 'the model has embed_dim=32', "norm_type='layer_norm'",
            'qkv_bias=True', 'set ')


def test_fewer_blocks_than_the_network_has(tmp_path):  # more: test_depth.py
    refused(write_flat(tmp_path), 'depth=3', 'the model has depth=4', depth=4, out_indices=[1])


def test_another_model(tmp_path):
    path = str(tmp_path / 'resnet.pth')
    torch.save({'conv1.weight': torch.ones(2), 'layer1.0.bn1.weight': torch.ones(2)}, path)
    refused(path, 'is not an InternViT', 'conv1.*')


def test_names_that_do_not_fit(tmp_path):
    weights = tiny().state_dict()
    weights['blocks.1.ls1.gama'] = weights.pop('blocks.1.ls1.gamma')
    path = str(tmp_path / 'x.pth')
    torch.save(weights, path)
    refused(path, 'missing: blocks.1.ls1.gamma (nearest: blocks.*.ls1.gama)',
            'unexpected: blocks.1.ls1.gama')


def test_a_shape_that_does_not_fit(tmp_path):
    weights = tiny().state_dict()
    weights['blocks.1.mlp.fc2.bias'] = torch.ones(31)
    path = str(tmp_path / 'x.pth')
    torch.save(weights, path)
    refused(path, 'blocks.1.mlp.fc2.bias', '(31,)', '(32,)')


def test_a_network_for_video(tmp_path):
    weights = tiny().state_dict()
    weights['patch_embed.proj.weight'] = weights['patch_embed.proj.weight'].unsqueeze(2)
    path = str(tmp_path / 'x.pth')
    torch.save(weights, path)
    refused(path, 'patch_embed.proj.weight has shape (32, 3, 1, 14, 14): expected 4 dimensions')


def test_nothing_is_changed_by_a_refused_file(tmp_path):
    weights = tiny().state_dict()
    del weights['cls_token']
    path = str(tmp_path / 'x.pth')
    torch.save(weights, path)
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match='missing: cls_token'):
        load_backbone(model, path)
    assert same(model.state_dict(), before)


def test_missing_shard(tmp_path):
    path = write_form('transformers, shards', tiny().state_dict(), tmp_path)
    os.remove(path + '/model-1.safetensors')
    refused(path, 'model-1.safetensors', 'missing', '3 are listed')


def test_a_shard_of_the_language_model_is_not_needed(tmp_path):
    vision = renamed(tiny().state_dict(), REMOTE_CODE, 'vision_model.')
    path = write_folder(tmp_path / 'vlm', vision, 1)
    index = tmp_path / 'vlm/model.safetensors.index.json'
    content = json.loads(index.read_text())
    content['weight_map']['language_model.x'] = 'model-not-fetched.safetensors'
    index.write_text(json.dumps(content))
    load_backbone(tiny(), path)


def test_folder_without_weights(tmp_path):
    refused(tmp_path, 'holds no weights', 'model.safetensors')


@pytest.mark.parametrize('dtype', [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize('form', ['flat', 'safetensors'])
def test_quantised(dtype, form, tmp_path):
    weights = tiny().state_dict()
    weights['blocks.0.mlp.fc1.weight'] = weights['blocks.0.mlp.fc1.weight'].to(dtype)
    refused(write_form(form, weights, tmp_path), 'blocks.0.mlp.fc1.weight',
            str(dtype).removeprefix('torch.'), 'bfloat16')


@pytest.mark.parametrize('dtype', [torch.int8, torch.int32])
@pytest.mark.parametrize('part', ['k', 'v'])
def test_a_quantised_part_beside_a_query_of_floats(part, dtype, tmp_path):
    weights = renamed(tiny().state_dict(), TRANSFORMERS)
    [name] = [name for name in weights if '.1.' in name and f'.{part}_proj.weight' in name]
    weights[name] = weights[name].to(dtype)
    path = str(tmp_path / 'x.safetensors')
    save_file(weights, path)
    refused(path, 'blocks.1.attn.qkv.weight', str(dtype).removeprefix('torch.'))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_not_finite(value, tmp_path):
    weights = tiny().state_dict()
    weights['blocks.2.mlp.fc1.weight'][3, 4] = value
    path = str(tmp_path / 'x.pth')
    torch.save(weights, path)
    refused(path, 'blocks.2.mlp.fc1.weight', 'NaN or infinity', check_finite=True)
    load_backbone(tiny(), path)  # it is only looked for when asked


def test_what_does_not_fit_into_float16_is_found(tmp_path):
    weights = tiny().state_dict()
    weights['cls_token'][0, 0, 0] = 1e6
    path = str(tmp_path / 'x.pth')
    torch.save(weights, path)
    load_backbone(tiny(), path, check_finite=True)
    with pytest.raises(InputError, match='cls_token holds NaN or infinity in float16'):
        load_backbone(tiny(), path, dtype=torch.float16, check_finite=True)


class Attack:
    def __reduce__(self):
        return os.system, ('touch pwned',)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('old', [False, True])
def test_code_is_refused_and_not_run(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    torch.save({**tiny().state_dict(), 'x': Attack()}, 'x.pth',
               _use_new_zipfile_serialization=not old)
    refused('x.pth', 'x.pth was refused', 'posix.system')
    with open('y.pth', 'wb') as file:
        pickle.dump(Attack(), file)
    refused('y.pth', 'y.pth')
    assert not os.path.exists('pwned')


@pytest.mark.parametrize('content, says', [
    (b'', 'is empty'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'git lfs pull'),
    (b'<!DOCTYPE html><html>', 'web page'),
    (b'hello world, these are words', 'neither a .pth nor a safetensors file'),
])
def test_no_weights_at_all(content, says, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    refused(path, says)


@pytest.mark.parametrize('content, says', [
    ([1, 2], 'holds a list'),
    ({}, 'holds a dict of 0 entries'),
    (dict(epoch=3, best=0.1), "'epoch' is a int"),
])
def test_no_state_dict(content, says, tmp_path):
    path = str(tmp_path / 'x.pth')
    torch.save(content, path)
    refused(path, says)


def test_no_permission(tmp_path, monkeypatch):
    path = write_flat(tmp_path)
    os.chmod(path, 0)
    if os.getuid() == 0:  # root may read everything
        def refuse(*args, **kwargs):
            raise PermissionError(13, 'Permission denied', path)
        monkeypatch.setattr('builtins.open', refuse)
    refused(path, 'cannot be read: Permission denied')


def test_a_mismatch_passes_mmcv_s_registry_as_it_is(tmp_path):
    stored = tiny().state_dict()
    del stored['blocks.2.norm2.weight']
    torch.save(stored, tmp_path / 'x.pth')
    with pytest.raises(InputError, match='missing: blocks.2.norm2.weight'):
        build_backbone(dict(type='InternViT6B', **SIZE, pretrained=str(tmp_path / 'x.pth')))
