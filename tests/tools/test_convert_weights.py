from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.tiny_networks import SIZE
from safetensors.torch import load_file

from mmseg_custom.models.backbones.intern_vit import InternViT6B


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / 'source.pth'
    torch.save(dict(module=InternViT6B(**SIZE).state_dict()), path)
    return path


@pytest.fixture
def convert(run_tool):
    return partial(run_tool, 'convert_weights.py')


def test_as_a_command(zygote, source, tmp_path):
    target = tmp_path / 'out.safetensors'
    output = zygote.run('tools/convert_weights.py', source, target)
    assert f'written: {target}' in output
    original = torch.load(source)['module']
    assert all(torch.equal(t, original[name]) for name, t in load_file(target).items())


def test_all_options(convert, source, tmp_path):
    target = tmp_path / 'hub.v2'
    code, output, _ = convert(source, target, '--to', 'hf', '--dtype', 'float16', '--num-heads', 2,
                              '--shard-gb', 1e-5, '--check-finite')
    assert code == 0 and f'written: {target}' in output
    shards = list(target.glob('model-*.safetensors'))
    assert len(shards) > 2 and (target / 'config.json').exists()
    assert {t.dtype for shard in shards for t in load_file(shard).values()} == {torch.float16}


@pytest.mark.parametrize('arguments, says', [
    (['missing.pth', 'x.pth'], 'source missing.pth does not exist in '),
    (['{source}', '{source}'], 'source.pth exists'),
    (['{source}', 'x.onnx'], "'.onnx'"),
    (['{source}', '{folder}/hub'], 'give --num-heads'),
    (['{source}', '{folder}/no/x.pth'], 'x.pth: was not written (the folder'),
])
def test_mistakes_are_one_line_and_exit_code_1(convert, source, tmp_path, arguments, says):
    arguments = [a.format(source=source, folder=tmp_path) for a in arguments]
    code, _, errors = convert(*arguments)
    lines = [line for line in errors.splitlines() if line and 'B/s]' not in line]
    assert code == 1 and len(lines) == 1 and says in lines[0] and lines[0].startswith('error: ')
