import json
import os
import pickle
from itertools import islice

import pytest
import torch
from helpers.mutations import mutations

from mmseg_custom.errors import InputError
from mmseg_custom.feature_cache import FeatureCache, RecordLayout, Shard, manage
from mmseg_custom.feature_cache.shards import CorruptShard, ShardData
from mmseg_custom.units import format_bytes

LAYOUT = RecordLayout(images=5, shapes=((4, 2, 2), (4, 1, 1)), crop=(8, 8), dtype='bf16',
                      shard_records=2)
OF = dict(weights='a', backbone=dict(depth=2))


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    cache = FeatureCache.of(str(tmp_path), OF, LAYOUT)
    cache.begin(OF, dict(weights='a.pth'))
    for shard in cache.shards(1):
        cache.write(shard, records(shard.number))
    return cache


def records(number: int) -> ShardData:
    data = ShardData.empty(LAYOUT, len(LAYOUT.images_of(number)))
    for tensor in (*data.features, data.labels):
        tensor.copy_(torch.randint(0, 99, tensor.shape))
    return data


def in_another_process(function) -> int:
    """The exit code of a child that computes nothing; forked, so that nothing is imported anew."""
    child = os.fork()
    if child == 0:
        os._exit(int(function()))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def damage(path: str, offset: int) -> None:
    with open(path, 'r+b') as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_records_are_what_was_written(cache):
    data = records(2)
    cache.write(Shard(1, 2), data)
    features, labels = cache.read(image=4, view=1)
    assert all(map(torch.equal, features, [tensor[0] for tensor in data.features]))
    assert torch.equal(labels, data.labels[0]) and labels.dtype == torch.uint8
    assert [x.dtype for x in features] == [torch.bfloat16] * 2
    assert cache.missing(2) == [Shard(1, 0), Shard(1, 1)] and len(cache.missing(3)) == 5
    assert os.stat(cache.path_of(Shard(1, 2))).st_mode & 0o444 == (
        os.stat(cache.folder).st_mode & 0o444)


def test_sizes():
    layout = RecordLayout.of(20210, ((3200, 36, 36),), (504, 504), 'bf16')
    assert layout.record_bytes == 36 * 36 * 3200 * 2 + 504 * 504 and layout.shard_records == 31
    assert [*LAYOUT.images_of(2)] == [4] and LAYOUT.shards == 3 and LAYOUT.place_of(3) == (1, 1)
    assert RecordLayout.from_plain(LAYOUT.plain()) == LAYOUT
    assert format_bytes(layout.record_bytes, decimal=True) == '8.55 MB'


def test_another_key_is_another_folder(tmp_path):
    names = {FeatureCache.of(str(tmp_path), of, layout).folder for of, layout in [
        (OF, LAYOUT), (dict(OF, weights='b'), LAYOUT), (dict(OF, backbone=dict(depth=3)), LAYOUT),
        (OF, RecordLayout(5, LAYOUT.shapes, LAYOUT.crop, 'fp16', 2))]}
    assert len(names) == 4


@pytest.mark.parametrize('offset', [3, 40, -100, -1])
def test_a_changed_byte_is_found(cache, offset):
    path = cache.path_of(Shard(0, 1))
    damage(path, offset)
    assert list(manage.verify(cache)) == [path]
    with pytest.raises(InputError, match=f'{path} is corrupt .* is removed: start the run again'):
        for image in LAYOUT.images_of(1):
            cache.read(image, 0)
    assert cache.missing(1) == [Shard(0, 1)]


def test_a_shard_that_was_cut_short(cache):
    os.truncate(cache.path_of(Shard(0, 0)), 200)
    with pytest.raises(CorruptShard, match='it cannot be read'):
        cache.check(Shard(0, 0))


def test_a_shard_of_another_layout(cache):
    os.replace(cache.path_of(Shard(0, 2)), cache.path_of(Shard(0, 0)))
    with pytest.raises(CorruptShard, match=r'holds \(1, 4, 2, 2\) torch.bfloat16 where \(2, 4'):
        cache.check(Shard(0, 0))


def test_only_what_is_new_is_checked(cache):
    assert len(cache.unchecked()) == 3
    cache.note_checked()
    assert cache.unchecked() == []
    damage(cache.path_of(Shard(0, 2)), -1)
    assert cache.unchecked() == [Shard(0, 2)]


def test_processes_share_the_work(cache):
    assert cache.claim(Shard(1, 0)) and cache.claim(Shard(1, 1))
    cache.release(Shard(1, 1))
    other = pickle.loads(pickle.dumps(cache))
    assert in_another_process(lambda: other.claim(Shard(1, 0))) == 0
    assert in_another_process(lambda: other.claim(Shard(1, 1))) == 1
    assert cache.claim(Shard(1, 1))  # the other's claim ended with it


def test_a_cache_in_use_is_not_removed(cache):
    root, name = os.path.split(cache.folder)
    cache.hold()

    def remove() -> bool:
        try:
            manage.delete(root, name)
        except InputError as error:
            return 'is in use' in str(error)
        return False
    assert in_another_process(remove) == 1 and os.path.exists(cache.folder)
    manage.delete(root, name)  # this process uses it itself
    assert not os.path.exists(cache.folder)


def test_leftovers_are_swept_unless_they_are_being_written(cache):
    parts = [cache.path_of(Shard(1, number)) + '.part' for number in (0, 1)]
    for part in parts:
        open(part, 'w').close()
    cache.claim(Shard(1, 1))
    other = pickle.loads(pickle.dumps(cache))
    assert in_another_process(lambda: other.remove_leftovers() == parts[:1]) == 1
    assert not os.path.exists(parts[0]) and os.path.exists(parts[1])


def test_what_the_list_says(cache, tmp_path):
    cache.write(Shard(1, 0), records(0))
    line = manage.summarize(str(tmp_path), os.path.basename(cache.folder)).line()
    assert '5 images x 1 of 2 views' in line and 'of 2, width None, bf16; a.pth' in line
    assert manage.matching(str(tmp_path), [os.path.basename(cache.folder)[:5]])
    with pytest.raises(InputError, match="'xyz': no caches in .* there are: "):
        manage.matching(str(tmp_path), ['xyz'])
    with pytest.raises(InputError, match='does not exist'):
        manage.matching(str(tmp_path / 'none'), [])
    (tmp_path / os.path.basename(cache.folder) / 'key.json').write_text('{')
    with pytest.raises(InputError, match='key.json: layout is missing; prune the cache'):
        FeatureCache.open(str(tmp_path), os.path.basename(cache.folder))


def test_every_place_of_the_key_with_what_does_not_belong_there(cache, tmp_path):
    path = tmp_path / os.path.basename(cache.folder) / 'key.json'
    refused = 0
    for name, changed in islice(mutations(json.loads(path.read_text())), 0, None, 3):
        path.write_text(json.dumps(changed))
        try:
            manage.summarize(str(tmp_path), os.path.basename(cache.folder)).line()
        except InputError as error:
            refused += 1
            assert str(path) in str(error) and len(str(error)) < 500, name
    assert refused > 50


def test_a_broken_cache_hides_no_other(cache, tmp_path, run_tool):
    cache.write(Shard(0, 0), records(0))
    name = os.path.basename(cache.folder)
    for broken, content in (('0broken', '{'), ('zbroken', '[1]')):
        (tmp_path / broken).mkdir()
        (tmp_path / broken / 'key.json').write_text(content)
    for command in ('list', 'verify', 'prune'):
        code, out, error = run_tool('cache.py', command, tmp_path)
        assert code == 1 and error.count('failed: ') == 2 and 'Traceback' not in error
        assert command == 'prune' or f'{name}  5 images' in out
        assert '2 of 3 caches failed, the others are done; the first: ' in error.splitlines()[-1]
