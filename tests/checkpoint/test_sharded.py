"""Checkpoints of two processes: see helpers/traces.py for the training around them."""
import json
import os
import pickle
import shutil
import zlib
from pathlib import Path

import pytest
import torch

from mmseg_custom.checkpoint import (
    is_whole,
    load_optimizer,
    newest_whole,
    open_checkpoint,
    remove_leftovers,
    save_sharded,
)
from mmseg_custom.checkpoint.files import safe_load
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.checkpoint.shard_reader import ShardReader
from mmseg_custom.errors import InputError
from mmseg_custom.files import SaveError

COMMON = dict(iters=4, norm=True)
RUNS = dict(
    two=dict(ranks=2, save='iter_2.dcp', **COMMON),
    two_again=dict(ranks=2, resume='iter_2.dcp', start=2, **COMMON),
    one_from_two=dict(engine='single', resume='iter_2.dcp', start=2, save='file.pth', **COMMON),
    one=dict(engine='single', save='whole.pth', **COMMON),
)
SLOW = dict(
    two_from_one=dict(ranks=2, resume='whole.pth', start=2, **COMMON),
    one_sharded_from_two=dict(ranks=1, engine='fsdp2', resume='iter_2.dcp', start=2, **COMMON),
)


@pytest.fixture(scope='module')
def folder(zygote, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('sharded')
    run_all(zygote, folder, RUNS)
    return folder


def run_all(zygote, folder: Path, runs: dict[str, dict]) -> None:
    zygote.run('tests/helpers/traces.py', folder,
               *(f'{name}={json.dumps(options)}' for name, options in runs.items()))


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of the checkpoint that a test may break."""
    return Path(shutil.copytree(folder / 'iter_2.dcp', tmp_path / 'iter_2.dcp'))


@pytest.mark.parametrize('name', ['two_again', 'one_from_two', *(
    pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_training_is_resumed_as_if_uninterrupted(zygote, folder, name):
    if name in SLOW:
        run_all(zygote, folder, {name: SLOW[name]})
    whole = torch.load(folder / 'two.pth')
    resumed = torch.load(folder / f'{name}.pth')
    torch.testing.assert_close(resumed['losses'], whole['losses'][2:], rtol=1e-5, atol=0)
    for key, tensor in whole['state_dict'].items():
        torch.testing.assert_close(resumed['state_dict'][key], tensor, rtol=0, atol=1e-4)


def test_same_number_of_processes_resumes_bit_by_bit(folder):
    whole, resumed = torch.load(folder / 'two.pth'), torch.load(folder / 'two_again.pth')
    assert resumed['losses'] == whole['losses'][2:]
    assert all(torch.equal(t, resumed['state_dict'][n]) for n, t in whole['state_dict'].items())


def test_folder_that_results(folder):
    names = set(os.listdir(folder / 'iter_2.dcp'))
    assert names == {'.metadata', 'meta.pth', '__0_0.distcp', '__1_0.distcp'}
    assert not (folder / 'iter_2.dcp.part').exists()
    assert is_whole(str(folder / 'iter_2.dcp'))
    assert newest_whole(str(folder)) == str(folder / 'iter_2.dcp')


def test_merged_file_is_what_one_process_saves(folder, tmp_path):
    merge(str(folder / 'iter_2.dcp'), str(tmp_path / 'merged.pth'))
    merged = torch.load(tmp_path / 'merged.pth', weights_only=True)
    whole = torch.load(folder / 'whole.pth', weights_only=True)
    assert merged['meta']['iter'] == 2
    assert merged['state_dict'].keys() == whole['state_dict'].keys()
    for key, tensor in whole['state_dict'].items():
        torch.testing.assert_close(merged['state_dict'][key], tensor, rtol=0, atol=1e-4)
    assert merged['optimizer']['state'].keys() == whole['optimizer']['state'].keys()
    groups = [group['params'] for group in merged['optimizer']['param_groups']]
    assert groups == [group['params'] for group in whole['optimizer']['param_groups']]


def test_missing_and_shortened_shards(copy):
    shard = copy / '__1_0.distcp'
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(InputError, match='__1_0.distcp is cut short'):
        open_checkpoint(str(copy))
    shard.unlink()
    with pytest.raises(InputError, match='lacks __1_0.distcp, one of its 2 shards'):
        open_checkpoint(str(copy))
    assert not is_whole(str(copy)) and newest_whole(str(copy.parent)) is None
    (copy / '.metadata').unlink()
    with pytest.raises(InputError, match='lacks .metadata'):
        open_checkpoint(str(copy))


class Evil:
    def __reduce__(self):
        return os.system, ('touch /tmp/was_here',)


def test_metadata_runs_nothing(copy):
    (copy / '.metadata').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match='.metadata is damaged: its CRC-32 is '):
        open_checkpoint(str(copy))
    header = torch.load(copy / 'meta.pth')
    header['crc32 of .metadata'] = f'{zlib.crc32((copy / ".metadata").read_bytes()):08x}'
    torch.save(header, copy / 'meta.pth')
    with pytest.raises(InputError, match='asks for posix.system'):
        open_checkpoint(str(copy))


def test_optimizer_of_another_config(copy):
    model = torch.nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(InputError, match='the one of this config 1 in 1'):
        load_optimizer(optimizer, open_checkpoint(str(copy)), model)


def test_failed_write_leaves_what_was_there(tmp_path, process_group, monkeypatch):
    model, path = torch.nn.Linear(2, 2), str(tmp_path / 'iter_1.dcp')
    save_sharded(model, path, meta=dict(iter=1), link_latest=True)

    def fail(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch.distributed.checkpoint.FileSystemWriter, 'write_data', fail)
    for name in ('iter_1.dcp', 'iter_2.dcp'):
        with pytest.raises(SaveError, match='No space left.*earlier files are unchanged'):
            save_sharded(model, str(tmp_path / name), link_latest=True)
    assert sorted(os.listdir(tmp_path)) == ['iter_1.dcp', 'latest.pth']
    assert ShardReader(path).weights['weight'].read().equal(model.weight)
    assert os.readlink(tmp_path / 'latest.pth') == 'iter_1.dcp'


def test_saving_twice_replaces_and_leftovers_are_swept(tmp_path, process_group):
    model, path = torch.nn.Linear(2, 2), str(tmp_path / 'iter_1.dcp')
    for iteration in (1, 2):
        save_sharded(model, path, meta=dict(iter=iteration))
    assert safe_load(f'{path}/meta.pth')[0]['meta']['iter'] == 2
    (tmp_path / 'iter_2.dcp.part').mkdir()
    assert remove_leftovers(str(tmp_path)) == [str(tmp_path / 'iter_2.dcp.part')]
    assert os.listdir(tmp_path) == ['iter_1.dcp']
