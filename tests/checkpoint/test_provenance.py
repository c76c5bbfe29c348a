import hashlib
import json
import os
import threading

import pytest
import torch
from helpers.tiny_networks import tiny, write_flat
from safetensors.torch import save_file

from mmseg_custom.checkpoint import provenance
from mmseg_custom.checkpoint.load import load_backbone
from mmseg_custom.checkpoint.provenance import (
    WeightsSource,
    bytes_of,
    known_sha256,
    metadata_of,
    record,
    set_weights_source,
    sha256_in_background,
    sha256_of,
    verify,
    weights_source_of,
)
from mmseg_custom.errors import InputError


@pytest.fixture
def reads(monkeypatch) -> list:
    """Counts how often a file is hashed; nothing is known at the start."""
    monkeypatch.setattr(provenance, '_HASHES', {})
    started = []
    original = hashlib.sha256

    def counting(*args):
        started.append(args)
        return original(*args)

    monkeypatch.setattr(provenance.hashlib, 'sha256', counting)
    return started


def test_it_is_the_sha_256_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, 'CHUNK_BYTES', 1000)  # several chunks and a rest
    path = tmp_path / 'x'
    path.write_bytes(os.urandom(12345))
    assert sha256_of(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert bytes_of(str(path)) == 12345


def test_a_file_is_read_once_also_by_the_next_process(tmp_path, reads, monkeypatch):
    path = write_flat(tmp_path)
    first = sha256_of(path)
    assert sha256_of(path) == first and len(reads) == 1
    monkeypatch.setattr(provenance, '_HASHES', {})  # another process
    assert sha256_of(path) == first and len(reads) == 1


def test_what_is_not_known_is_not_waited_for(tmp_path, reads):
    (tmp_path / 'x').write_bytes(b'abc')
    assert known_sha256(str(tmp_path / 'x')) is None and not reads
    assert sha256_of(str(tmp_path / 'x')) == known_sha256(str(tmp_path / 'x'))
    assert known_sha256(str(tmp_path / 'missing')) is None


def test_a_file_that_changed_is_read_again(tmp_path, reads):
    path = tmp_path / 'x'
    path.write_bytes(b'one')
    before = sha256_of(str(path))
    path.write_bytes(b'two')
    os.utime(path, ns=(1, 1))
    assert sha256_of(str(path)) != before and len(reads) == 2


def test_without_a_cache_folder_it_still_works(tmp_path, monkeypatch):
    (tmp_path / 'file').write_bytes(b'')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))  # not a folder
    monkeypatch.setattr(provenance, '_HASHES', {})
    (tmp_path / 'x').write_bytes(b'one')
    assert sha256_of(str(tmp_path / 'x')) == hashlib.sha256(b'one').hexdigest()


def test_a_thread_ahead_and_a_caller_share_the_work(tmp_path, reads):
    path = write_flat(tmp_path)
    thread = sha256_in_background(path)
    assert isinstance(thread, threading.Thread) and thread.daemon
    sha256_of(path)
    thread.join()
    assert len(reads) == 1


def test_a_folder_counts_by_its_weights_alone(tmp_path):
    weights = {name: t.contiguous() for name, t in tiny().state_dict().items()}
    names = list(weights)
    files = ['model-1.safetensors', 'model-2.safetensors']
    for file, part in zip(files, (names[:20], names[20:])):
        save_file({name: weights[name] for name in part}, tmp_path / file)
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map={
        name: files[i >= 20] for i, name in enumerate(names)})))
    before = sha256_of(str(tmp_path))
    manifest = ''.join(f'{hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()}  {file}\n'
                       for file in files)
    assert before == hashlib.sha256(manifest.encode()).hexdigest()
    assert bytes_of(str(tmp_path)) == sum(os.path.getsize(tmp_path / file) for file in files)
    (tmp_path / 'config.json').write_text('{}')
    assert sha256_of(str(tmp_path)) == before
    assert sha256_of(str(tmp_path / 'model.safetensors.index.json')) == before


def test_a_backbone_knows_its_file_until_other_weights_come(tmp_path):
    path = write_flat(tmp_path)
    model = tiny(pretrained=path)
    source = weights_source_of(model)
    assert source.path == path and set(source.names) == set(model.state_dict())
    model.load_state_dict(tiny().state_dict())
    assert weights_source_of(model) is None


def test_a_state_dict_may_bring_its_own_note(tmp_path):
    path = write_flat(tmp_path)
    model, source = tiny(pretrained=path), WeightsSource('/elsewhere', ('cls_token',))
    state_dict = model.state_dict()
    state_dict._metadata[''] = metadata_of(source)
    model.load_state_dict(state_dict)
    assert weights_source_of(model) == source


def test_nothing_is_known_of_random_weights():
    assert weights_source_of(tiny()) is None


def test_a_record_holds_what_rebuilds_the_tensors(tmp_path):
    path = write_flat(tmp_path)
    model = tiny(pretrained=path, img_size=126)
    model.cls_token.data = model.cls_token.data.float()
    entry = record(model, weights_source_of(model))
    with open(path, 'rb') as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert entry == dict(path=path, sha256=digest, bytes=os.path.getsize(path),
                         pos_embed_tokens=82, dtype='bfloat16',
                         other_dtypes=dict(cls_token='float32'))


def test_another_file_is_refused_by_name_and_hash(tmp_path):
    path = write_flat(tmp_path)
    model = tiny(pretrained=path)
    entry = record(model, weights_source_of(model))
    verify(entry, path, 'iter_1.pth')
    (tmp_path / 'other').mkdir()
    other = str(tmp_path / 'other' / 'flat.pth')  # torch writes the name into the file too
    weights = torch.load(path)
    weights['cls_token'][0, 0, 0] += 1
    torch.save(weights, other)
    for name in (path, other, entry['sha256'][:12], sha256_of(other)[:12]):
        with pytest.raises(InputError, match=name):
            verify(entry, other, 'iter_1.pth')


def test_a_file_of_another_size_is_refused_without_reading_it(tmp_path, reads):
    path = write_flat(tmp_path)
    model = tiny(pretrained=path)
    entry = record(model, weights_source_of(model))
    (tmp_path / 'x').write_bytes(b'one')
    del reads[:]
    with pytest.raises(InputError, match='3 bytes'):
        verify(entry, str(tmp_path / 'x'), 'iter_1.pth')
    assert reads == []


def test_notes_do_not_stack_up(tmp_path):
    path = write_flat(tmp_path)
    model = tiny(pretrained=path)
    hooks = len(model._load_state_dict_pre_hooks)
    load_backbone(model, path)
    set_weights_source(model, None)
    assert len(model._load_state_dict_pre_hooks) == hooks
