import json
import os
import zipfile
import zlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmseg_custom.checkpoint.export import (
    split_into_shards,
    write_pth,
    write_safetensors,
    write_shards,
)
from mmseg_custom.checkpoint.lazy import LazyTensor
from mmseg_custom.errors import InputError
from mmseg_custom.files import SaveError

TENSORS = dict(
    a=torch.randn(3, 4), scalar=torch.tensor(7), empty=torch.zeros(0, 2),
    half=torch.randn(5).half(), brain=torch.randn(2, 2).bfloat16(), flags=torch.tensor([True]),
    double=torch.randn(2).double(), bytes=torch.arange(3, dtype=torch.uint8))


def lazy(tensors: dict) -> dict[str, LazyTensor]:
    return {name: LazyTensor.of(tensor) for name, tensor in tensors.items()}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and torch.equal(a[n], b[n])
        for n in a)


@pytest.mark.parametrize('mmap', [False, True])
def test_a_pth_is_what_torch_would_write(mmap, tmp_path):
    path, written = str(tmp_path / 'x.pth'), []
    content = dict(meta=dict(iter=3, names=['x', (1, None)]), state_dict=lazy(TENSORS),
                   optimizer=dict(state={0: torch.ones(2)}))
    write_pth(path, content, written.append)
    read = torch.load(path, weights_only=True, mmap=mmap)
    assert equal(read['state_dict'], TENSORS) and read['meta'] == content['meta']
    assert torch.equal(read['optimizer']['state'][0], torch.ones(2))
    assert written == [t.nbytes for t in TENSORS.values()] + [8]
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None  # checksums too


@pytest.mark.parametrize('mmap', [False, True])
@pytest.mark.parametrize('dtype', [torch.float8_e4m3fn, torch.uint16, torch.complex64])
def test_a_pth_holds_newer_dtypes_too(dtype, mmap, tmp_path):
    tensor = torch.arange(6.).view(2, 3).to(dtype)
    write_pth(str(tmp_path / 'x.pth'), dict(x=tensor, y=LazyTensor.of(tensor), z=torch.ones(2)))
    read = torch.load(tmp_path / 'x.pth', weights_only=True, mmap=mmap)
    assert read['x'].dtype == read['y'].dtype == dtype and read['z'].tolist() == [1, 1]
    assert read['x'].tolist() == read['y'].tolist() == tensor.tolist()


def test_a_dtype_that_is_not_written_to_safetensors(tmp_path):
    path = tmp_path / 'x.safetensors'
    with pytest.raises(InputError, match='x.safetensors: odd is float8_e4m3fn, .* ends in .pth'):
        write_safetensors(str(path), lazy(dict(odd=torch.ones(2).to(torch.float8_e4m3fn))))
    assert not path.exists()


def test_the_pth_is_aligned_like_torchs(tmp_path):
    for write, name in ((write_pth, 'a.pth'), (lambda p, o: torch.save(o, p), 'b.pth')):
        write(str(tmp_path / name), dict(x=torch.ones(7), y=torch.ones(3)))
        tensors = torch.load(tmp_path / name, mmap=True)
        assert all(t.data_ptr() % 64 == 0 for t in tensors.values())


def test_a_part_of_a_larger_storage_is_written_alone(tmp_path):
    rows = torch.arange(3_000_000.).view(3, -1)
    part = LazyTensor((1, 1_000_000), torch.float32, lambda: rows[1:2])
    write_pth(str(tmp_path / 'x.pth'), dict(part=part))
    assert torch.equal(torch.load(tmp_path / 'x.pth')['part'], rows[1:2])
    assert os.path.getsize(tmp_path / 'x.pth') < 4_010_000


def test_transposed_tensors_are_straightened(tmp_path):
    tensor = torch.randn(3, 5).t()
    write_pth(str(tmp_path / 'x.pth'), lazy(dict(x=tensor)))
    write_safetensors(str(tmp_path / 'x.safetensors'), lazy(dict(x=tensor)))
    assert torch.equal(torch.load(tmp_path / 'x.pth')['x'], tensor)
    assert torch.equal(load_file(tmp_path / 'x.safetensors')['x'], tensor)


def test_safetensors_are_what_the_library_would_write(tmp_path):
    ours, theirs, written = tmp_path / 'ours', tmp_path / 'theirs', []
    write_safetensors(str(ours), lazy(TENSORS), written.append)
    assert equal(load_file(ours), TENSORS)
    assert sum(written) == sum(t.nbytes for t in TENSORS.values())
    some = {name: TENSORS[name] for name in ('bytes', 'a', 'double', 'brain')}  # no ties in order
    write_safetensors(str(ours), lazy(some))
    with safe_open(ours, framework='pt') as file:
        metadata = file.metadata()
    sums = {name: f'{zlib.crc32(tensor.flatten().view(torch.uint8).numpy()):08x}'
            for name, tensor in some.items()}
    assert metadata['format'] == 'pt' and json.loads(metadata['crc32']) == sums
    save_file(some, theirs, metadata=metadata)
    for read in (header_of, tensors_of):
        assert read(ours.read_bytes()) == read(theirs.read_bytes())


def header_of(data: bytes) -> dict:
    return json.loads(data[8:8 + int.from_bytes(data[:8], 'little')])


def tensors_of(data: bytes) -> bytes:
    return data[8 + int.from_bytes(data[:8], 'little'):]


def test_each_tensor_is_made_when_it_is_written_and_freed_before_the_next(tmp_path):
    events = []

    def tensor(name: str) -> LazyTensor:
        return LazyTensor((2,), torch.float32, lambda: events.append(f'make {name}')
                          or torch.ones(2), lambda: events.append(f'done {name}'))

    for write in (write_pth, write_safetensors):
        del events[:]
        write(str(tmp_path / 'x'), dict(a=tensor('a'), b=tensor('b')))
        assert events == ['make a', 'done a', 'make b', 'done b']


@pytest.mark.parametrize('write', [write_pth, write_safetensors])
def test_an_error_midway_leaves_what_was_there(write, tmp_path):
    path = tmp_path / 'x'
    path.write_text('before')

    def fail():
        raise ValueError('no such luck')

    with pytest.raises(ValueError, match='no such luck'):
        write(str(path), dict(a=LazyTensor((1,), torch.float32, fail)))
    assert path.read_text() == 'before' and os.listdir(tmp_path) == ['x']


@pytest.mark.parametrize('write', [write_pth, write_safetensors])
def test_what_is_not_as_announced_is_not_written(write, tmp_path):
    wrong = LazyTensor((1,), torch.float32, lambda: torch.ones(2))
    with pytest.raises(ValueError, match='was announced'):
        write(str(tmp_path / 'x'), dict(a=wrong))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('write', [write_pth, write_safetensors])
def test_a_folder_that_is_not_there(write, tmp_path):
    with pytest.raises(SaveError, match='was not written'):
        write(str(tmp_path / 'no' / 'x'), {})


def test_shards_hold_at_most_so_much():
    tensors = lazy({str(i): torch.ones(n) for i, n in enumerate((10, 10, 30, 5, 5))})
    assert split_into_shards(tensors, 80) == [['0', '1'], ['2'], ['3', '4']]
    assert split_into_shards(tensors, 1 << 40) == [list('01234')]


def test_shards_and_their_index(tmp_path):
    write_shards(str(tmp_path), lazy(TENSORS), 50)
    read = {}
    for file in sorted(tmp_path.glob('model-*-of-*.safetensors')):
        read.update(load_file(file))
    assert equal(read, TENSORS)
    assert (tmp_path / 'model.safetensors.index.json').exists()
