"""Damaged and hostile files of weights: they end right, or in one line, within time and memory."""
import json
import pickle
import subprocess
import sys

import pytest
import torch
from helpers.commands import ROOT
from helpers.mutated_weights import write_whole
from helpers.tiny_networks import Segmentor, tiny

from mmseg_custom.checkpoint import (
    load_backbone,
    load_optimizer,
    load_segmentor,
    newest_whole,
    open_checkpoint,
    read_checkpoint,
)
from mmseg_custom.checkpoint.convert import convert
from mmseg_custom.checkpoint.files import read_weights
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.errors import InputError


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('mutations')
    write_whole(folder / 'whole')
    return folder


def check(text: str, count: int) -> None:
    last = text.strip().splitlines()[-1]
    assert 'WRONG' not in text and "'refused'" in last and "'right'" in last, text[-3000:]
    assert sum(map(int, last.replace(',', ' ').replace('}', ' ').split()[1:4:2])) == count


def test_hundreds_of_mutations(zygote, whole):
    check(zygote.run('tests/helpers/mutated_weights.py', whole, 0, 30), 7 * 30)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(1, 5))
def test_thousands_of_mutations(whole, seed):
    script = ROOT / 'tests/helpers/mutated_weights.py'
    check(subprocess.run([sys.executable, script, whole, str(seed),
                          '300'], capture_output=True, text=True, check=True, env={
        'PYTHONPATH': f'{ROOT}:{ROOT}/tests', 'OMP_NUM_THREADS': '1'}).stdout, 7 * 300)


def test_a_memo_of_gigabytes_in_a_work_dir(whole, tmp_path):
    """Nine bytes that merely lie there; the reader of pickles would allocate 8 GB for them."""
    (tmp_path / 'iter_9.dcp').mkdir()
    (tmp_path / 'iter_9.dcp/.metadata').write_bytes(b'\x80\x02Nr\x00\x00\x00@.')
    torch.save({}, tmp_path / 'iter_9.dcp/meta.pth')
    assert newest_whole(str(tmp_path)) is None
    with pytest.raises(InputError, match='object number 1073741824 in 9 bytes'):
        open_checkpoint(str(tmp_path / 'iter_9.dcp'))


def test_a_block_number_of_billions(tmp_path):
    weights = tiny().state_dict()
    weights['blocks.99999999999.norm1.weight'] = torch.ones(32)
    torch.save(weights, tmp_path / 'x.pth')
    with pytest.raises(InputError, match='unexpected: blocks.99999999999.norm1.weight'):
        convert(str(tmp_path / 'x.pth'), str(tmp_path / 'y.pth'), 'pth')
    weights['blocks.999999.norm1.weight'] = weights.pop('blocks.99999999999.norm1.weight')
    torch.save(weights, tmp_path / 'x.pth')
    with pytest.raises(InputError, match='missing: .*blocks.'):
        convert(str(tmp_path / 'x.pth'), str(tmp_path / 'y.pth'), 'pth')


@pytest.mark.parametrize('shard', ['', '.', '..', 'model.safetensors.index.json', '../x', 5, None])
def test_an_index_that_leads_elsewhere(tmp_path, shard):
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(json.dumps(dict(weight_map={'patch_embed.proj.weight': shard})))
    with pytest.raises(InputError, match='the file of patch_embed.proj.weight is .*: expected'):
        read_weights(str(tmp_path))


@pytest.mark.parametrize('content, message', [
    ({1: torch.ones(1)}, 'the name of a tensor is 1'),
    ({'a\nb': torch.ones(1)}, r"the name of a tensor is 'a\\nb'"),
    ({'a': torch.ones(1).expand(10**12)}, r'a tensor of shape \(1000000000000,\) in \d+ bytes'),
    ({'a': torch.ones(1).to_sparse()}, 'expected dense tensors'),
    ({'a': torch.ones(1), 'meta': range(10**12)}, 'is too long'),
    ({'patch_embed.proj.weight': torch.tensor(1.0)}, 'has shape .*: expected 4 dimensions'),
])
def test_contents_of_a_backbone(tmp_path, content, message):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(InputError, match=message):
        load_backbone(tiny(), str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('name, tensor', [
    ('blocks.0.attn.qkv.weight', torch.tensor(1.0)), ('pos_embed', torch.ones(17)),
    ('blocks.0.norm1.weight', torch.ones(32).to(torch.float8_e4m3fn)),
    ('blocks.0.norm1.weight', torch.ones(32, dtype=torch.uint16)),
])
def test_shapes_and_dtypes(tmp_path, name, tensor):
    torch.save({**tiny().state_dict(), name: tensor}, tmp_path / 'x.pth')
    for use in (lambda path: load_backbone(tiny(), path),
                lambda path: convert(path, str(tmp_path / 'y'), 'hf', num_heads=2)):
        with pytest.raises(InputError, match=name):
            use(str(tmp_path / 'x.pth'))


def test_a_counter_of_another_dtype(tmp_path):
    weights = Segmentor().state_dict()
    weights['decode_head.norm.num_batches_tracked'] = torch.ones(()).to(torch.float8_e5m2)
    torch.save(dict(state_dict=weights), tmp_path / 'x.pth')
    with pytest.raises(InputError, match='num_batches_tracked is float8_e5m2'):
        load_segmentor(Segmentor(), str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('record', [
    dict(sha256='0' * 64), dict(path='x'),
    dict(path='x', sha256='y', bytes=1, pos_embed_tokens=17, dtype='float32', other_dtypes={}),
    dict(path='x', sha256='0' * 64, bytes=1, pos_embed_tokens=18, dtype='float32',
         other_dtypes={}),
    dict(path='x', sha256='0' * 64, bytes=1, pos_embed_tokens=17, dtype='load', other_dtypes={}),
])
def test_an_incomplete_record_of_a_backbone(tmp_path, record):
    path = str(tmp_path / 'x.pth')
    torch.save(dict(meta=dict(backbone=record), state_dict=Segmentor().state_dict()), path)
    for use in (open_checkpoint, read_checkpoint, lambda path: merge(path, f'{path}.merged.pth')):
        with pytest.raises(InputError, match='meta.backbone'):
            use(path)


@pytest.mark.parametrize('optimizer', [
    5, [], {}, dict(state={}), dict(state={}, param_groups=[5]), dict(state=[], param_groups=[]),
    dict(state={0: 5}, param_groups=[dict(params=[0])]),
    dict(state={'x': {}}, param_groups=[dict(params=[0])]),
    dict(state={}, param_groups=[dict(params=[0, 0])]),
])
def test_what_is_no_optimizer(tmp_path, optimizer):
    """It is refused where a run is resumed, and of no account where the weights are loaded."""
    model, path = Segmentor(), str(tmp_path / 'iter_1.pth')
    torch.save(dict(meta=dict(iter=1), state_dict=model.state_dict(), optimizer=optimizer), path)
    with pytest.raises(InputError, match='optimizer'):
        load_optimizer(torch.optim.AdamW(model.parameters()), open_checkpoint(path), model)
    assert newest_whole(str(tmp_path)) is None
    load_segmentor(model, path)


def test_an_optimizer_that_is_none_and_a_deep_pickle(tmp_path):
    path = str(tmp_path / 'x.pth')
    torch.save(dict(state_dict=Segmentor().state_dict(), optimizer=None), path)
    assert open_checkpoint(path).optimizer is None
    deep = []
    for _ in range(200):
        deep = [deep]
    torch.save(dict(state_dict=Segmentor().state_dict(), meta=dict(deep=deep)), path)
    with pytest.raises(InputError, match='nested more than 100 times'):
        open_checkpoint(path)
    laughs = ['ha']
    for _ in range(50):
        laughs = [laughs, laughs]  # 2^50 values in 400 bytes
    torch.save(dict(state_dict=Segmentor().state_dict(), meta=dict(laughs=laughs)), path)
    with pytest.raises(InputError, match='more than its bytes can hold'):
        open_checkpoint(path)


def test_legacy_files_have_bounds_too(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    data = (tmp_path / 'x.pth').read_bytes()
    assert read_weights(str(tmp_path / 'x.pth'))
    start = len(pickle.dumps(0x1950a86a20f9469cfc6c, 2))
    (tmp_path / 'x.pth').write_bytes(data[:start] + b'\x80\x02Nr\x00\x00\x00\x7f.')
    with pytest.raises(InputError, match='object number 2130706432'):
        read_weights(str(tmp_path / 'x.pth'))
