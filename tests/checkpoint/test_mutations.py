"""Damaged and hostile files of weights: they end right, or in one line, within time and memory."""
import json
import pickle
import subprocess
import sys

import pytest
import torch
from helpers.commands import ROOT
from helpers.mutated_weights import write_whole
from helpers.tiny_networks import tiny

from mmseg_custom.checkpoint import (
    newest_whole,
    open_checkpoint,
)
from mmseg_custom.checkpoint.convert import convert
from mmseg_custom.checkpoint.files import read_weights
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


@pytest.mark.slow
def test_hundreds_of_mutations(zygote, whole):
    check(zygote.run('tests/helpers/mutated_weights.py', whole, 0, 30), 8 * 30)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(1, 5))
def test_thousands_of_mutations(whole, seed):
    script = ROOT / 'tests/helpers/mutated_weights.py'
    check(subprocess.run([sys.executable, script, whole, str(seed),
                          '300'], capture_output=True, text=True, check=True, env={
        'PYTHONPATH': f'{ROOT}:{ROOT}/tests', 'OMP_NUM_THREADS': '1'}).stdout, 8 * 300)


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


def test_legacy_files_have_bounds_too(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    data = (tmp_path / 'x.pth').read_bytes()
    assert read_weights(str(tmp_path / 'x.pth'))
    start = len(pickle.dumps(0x1950a86a20f9469cfc6c, 2))
    (tmp_path / 'x.pth').write_bytes(data[:start] + b'\x80\x02Nr\x00\x00\x00\x7f.')
    with pytest.raises(InputError, match='object number 2130706432'):
        read_weights(str(tmp_path / 'x.pth'))
