from functools import partial

import pytest
import torch
from helpers.adapters import adapted, save
from helpers.tiny_networks import SIZE, write_flat
from torch import nn

from mmseg_custom.checkpoint import save_checkpoint
from mmseg_custom.models.backbones.intern_vit import InternViT6B


@pytest.fixture
def trained(tmp_path, monkeypatch) -> nn.Module:
    """A segmentor whose small checkpoint is iter_1.pth, and its backbone's file flat.pth."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    torch.save(InternViT6B(**SIZE).state_dict(), tmp_path / 'flat.pth')
    model = nn.Module()
    model.backbone = InternViT6B(**SIZE, pretrained=str(tmp_path / 'flat.pth'), freeze_vit=True)
    model.decode_head = nn.Linear(2, 2)
    save_checkpoint(model, str(tmp_path / 'iter_1.pth'), meta=dict(iter=1))
    return model


@pytest.fixture
def call(run_tool):
    return partial(run_tool, 'merge_checkpoint.py')


def test_a_small_checkpoint_becomes_whole(trained, call, tmp_path):
    code, output, _ = call(tmp_path / 'iter_1.pth', tmp_path / 'full.pth')
    assert code == 0 and f'written: {tmp_path}/full.pth' in output
    whole = torch.load(tmp_path / 'full.pth')['state_dict']
    assert whole.keys() == trained.state_dict().keys()
    assert all(torch.equal(t, whole[name]) for name, t in trained.state_dict().items())


def test_and_back(trained, call, tmp_path):
    flat, full, small = (tmp_path / name for name in ('flat.pth', 'full.pth', 'small.pth'))
    assert call(tmp_path / 'iter_1.pth', full, '--backbone', flat)[0] == 0
    code, output, _ = call(full, small, '--split', '--backbone', flat)
    count = len(trained.backbone.state_dict())
    assert code == 0 and f'small.pth (2 tensors; {count} are left to {flat})' in output
    assert torch.load(small)['meta'] == torch.load(tmp_path / 'iter_1.pth')['meta']


def test_safetensors(trained, call, tmp_path):
    code, output, _ = call(tmp_path / 'iter_1.pth', tmp_path / 'full.safetensors')
    assert code == 0 and 'full.safetensors' in output


def test_adapters(call, tmp_path, monkeypatch):
    """Into one file, into a folder of peft, and from there into a backbone."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    path = save(adapted(write_flat(tmp_path)), tmp_path)
    code, output, _ = call(path, tmp_path / 'full.pth')
    assert code == 0 and f'written: {tmp_path}/full.pth' in output
    assert 'rounding them to bfloat16 would change them ' in output
    code, output, _ = call(path, tmp_path / 'adapters')
    assert code == 0 and output.splitlines()[-1] == f'written: {tmp_path}/adapters'
    assert call(tmp_path / 'adapters', tmp_path / 'backbone.pth')[0] == 0
    merged, backbone = (torch.load(tmp_path / name) for name in ('full.pth', 'backbone.pth'))
    assert all(torch.equal(merged['state_dict'][f'backbone.{name}'], tensor)
               for name, tensor in backbone.items())


@pytest.mark.parametrize('arguments, says', [
    (['missing.pth', 'x.pth'], 'checkpoint missing.pth does not exist in '),
    (['flat.pth', 'x.pth'], 'is no checkpoint of a segmentor'),
    (['iter_1.pth', 'flat.pth'], 'flat.pth exists'),
    (['iter_1.pth', 'x.pth', '--backbone', 'iter_1.pth'], 'iter_1.pth is another one'),
    (['iter_1.pth', 'x.pth', '--split'], '--split needs --backbone FILE'),
])
def test_mistakes_are_one_line_and_exit_code_1(trained, call, tmp_path, monkeypatch, arguments,
                                               says):
    monkeypatch.chdir(tmp_path)
    code, _, errors = call(*arguments)
    lines = [line for line in errors.splitlines() if line and 'B/s]' not in line]
    assert code == 1 and len(lines) == 1 and says in lines[0] and lines[0].startswith('error: ')
