import os

import pytest
import torch
from helpers.adapters import adapted, features, save
from helpers.tiny_networks import Segmentor, same, write_flat
from safetensors.torch import load_file

from mmseg_custom.checkpoint import load_segmentor, save_sharded
from mmseg_custom.checkpoint.merge import merge, split
from mmseg_custom.checkpoint.peft_folder import read_adapter_folder
from mmseg_custom.errors import InputError
from mmseg_custom.files import SaveError
from mmseg_custom.layers.lora import is_adapter


@pytest.fixture
def run(tmp_path):
    """(segmentor with adapters and norms, its checkpoint)."""
    model = adapted(write_flat(tmp_path), use_dora=True)
    return model, save(model, tmp_path)


def labels(model: Segmentor) -> torch.Tensor:
    return model.decode_head.conv_seg(features(model)).argmax(1)


def test_one_file_that_the_original_loads(run, tmp_path):
    """Names of the network without adapters, merged layers in float32; labels stay."""
    model, path = run
    loss = merge(path, str(tmp_path / 'full.pth'))
    assert 0 < loss.share < 0.1  # random adapters are as large as the weights
    whole = torch.load(tmp_path / 'full.pth', weights_only=True)
    assert whole.keys() == {'meta', 'state_dict'}
    assert whole['meta'].keys() == {'iter', 'CLASSES', 'merged'}
    assert whole['meta']['merged']['adapt'] == model.backbone.adapt_record
    plain = Segmentor().float()
    assert whole['state_dict'].keys() == plain.state_dict().keys()
    plain.load_state_dict(whole['state_dict'])
    torch.testing.assert_close(features(plain), features(model), rtol=1e-5, atol=1e-5)
    assert torch.equal(labels(plain), labels(model))


def test_merged_layers_alone_are_float32(tmp_path):
    """In bfloat16 they would lose what adapters change a little; others keep their dtype."""
    adapt = dict(type='lora', r=4, alpha=6, targets=['qkv'])
    model = Segmentor(pretrained=write_flat(tmp_path), adapt=adapt)
    for block in model.backbone.blocks:
        block.attn.qkv.lora_B.default.weight.data.fill_(1e-4)
    loss = merge(save(model, tmp_path), str(tmp_path / 'full.pth'))
    assert loss.share > 0.9
    whole = torch.load(tmp_path / 'full.pth')['state_dict']
    float32 = {name for name, tensor in whole.items() if name.startswith('backbone.')
               and tensor.dtype == torch.float32}
    assert float32 == {f'backbone.blocks.{i}.attn.qkv.weight' for i in range(3)}
    base = torch.load(tmp_path / 'flat.pth')['blocks.0.attn.qkv.weight']
    assert (whole['backbone.blocks.0.attn.qkv.weight'] != base).all()


def test_to_safetensors(run, tmp_path):
    model, path = run
    merge(path, str(tmp_path / 'full.pth'))
    merge(path, str(tmp_path / 'full.safetensors'))
    whole = torch.load(tmp_path / 'full.pth')['state_dict']
    written = load_file(tmp_path / 'full.safetensors')
    assert written.keys() == whole.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in whole.items())


def test_a_sharded_checkpoint(run, tmp_path):
    model, path = run
    merge(path, str(tmp_path / 'full.pth'))
    save_sharded(model, str(tmp_path / 'iter_1.dcp'), None, dict(iter=1))
    merge(str(tmp_path / 'iter_1.dcp'), str(tmp_path / 'again.pth'))
    merge(str(tmp_path / 'iter_1.dcp'), str(tmp_path / 'adapters'))
    whole, again = (torch.load(tmp_path / name)['state_dict'] for name in ('full.pth', 'again.pth'))
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    assert os.path.exists(tmp_path / 'adapters/adapter_config.json')


def test_averages_are_merged_and_their_second_tensors_left_aside(run, tmp_path):
    model, path = run
    content = torch.load(path)
    second = 'ema_backbone_blocks_0_attn_qkv_lora_A_default_weight'
    content['state_dict'][second] = torch.ones(4, 32)
    torch.save(content, path)
    merge(path, str(tmp_path / 'full.pth'))
    assert not [name for name in torch.load(tmp_path / 'full.pth')['state_dict'] if 'ema' in name]


def test_what_exists_is_left_alone(run, tmp_path):
    _, path = run
    (tmp_path / 'adapters').mkdir()
    for target in (path, str(tmp_path / 'adapters'), str(tmp_path / 'adapters') + '/'):
        with pytest.raises(InputError, match='exists: remove it first'):
            merge(path, target)


@pytest.mark.parametrize('target', ['full.pth', 'full.safetensors', 'adapters'])
def test_a_full_disk_leaves_nothing(run, target, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')
    before = set(os.listdir(tmp_path))
    monkeypatch.setattr('mmseg_custom.files.flush', full)
    with pytest.raises(SaveError, match='No space left'):
        merge(run[1], str(tmp_path / target))
    assert set(os.listdir(tmp_path)) == before


def test_checkpoints_without_adapters_are_no_folder(tmp_path):
    model = Segmentor(pretrained=write_flat(tmp_path), freeze_vit=True)
    path = save(model, tmp_path)
    with pytest.raises(InputError, match='holds no adapters'):
        merge(path, str(tmp_path / 'adapters') + '/')


@pytest.mark.parametrize('frozen_dtype', [None, 'int8'])
def test_a_checkpoint_that_holds_its_backbone(frozen_dtype, tmp_path):
    """Of a run on random weights, in 8 bits too."""
    model = adapted(None, backbone=dict(frozen_dtype=frozen_dtype))
    merge(save(model, tmp_path), str(tmp_path / 'full.pth'))
    plain = Segmentor().float()
    plain.load_state_dict(torch.load(tmp_path / 'full.pth')['state_dict'])
    torch.testing.assert_close(features(plain), features(model), rtol=1e-5, atol=1e-5)
    merge(str(tmp_path / 'iter_1.pth'), str(tmp_path / 'adapters'))
    assert read_adapter_folder(str(tmp_path / 'adapters')).base is None


def test_a_folder_is_for_the_file_alone(tmp_path):
    """Weights that differ from it would be missing in the folder: in one file they are not."""
    model = adapted(write_flat(tmp_path), backbone=dict(unfreeze_pos_embed=True))
    model.backbone.pos_embed.data.add_(1)
    path = save(model, tmp_path)
    with pytest.raises(InputError, match='also holds pos_embed, which differ from .*flat.pth'):
        merge(path, str(tmp_path / 'adapters'))
    merge(path, str(tmp_path / 'full.pth'))
    plain = Segmentor().float()
    plain.load_state_dict(torch.load(tmp_path / 'full.pth')['state_dict'])
    torch.testing.assert_close(features(plain), features(model), rtol=1e-5, atol=1e-5)


def test_split_keeps_the_adapters(tmp_path):
    model = adapted(None)
    path = save(model, tmp_path)
    base = {name.removeprefix('backbone.'): tensor for name, tensor in model.state_dict().items()
            if name.startswith('backbone.') and not is_adapter(name)}
    torch.save(base, tmp_path / 'base.pth')
    split(path, str(tmp_path / 'small.pth'), str(tmp_path / 'base.pth'))
    small = torch.load(tmp_path / 'small.pth')
    assert len(small['state_dict']) == len(model.state_dict()) - len(base)
    again = Segmentor(pretrained=str(tmp_path / 'base.pth'),
                      adapt=dict(type='lora', r=4, alpha=6)).float()
    load_segmentor(again, str(tmp_path / 'small.pth'))
    assert same(again.state_dict(), model.state_dict())
