import numpy as np
import pytest
import torch
from mmcv import ConfigDict
from safetensors.torch import save_file

from mmseg_custom.checkpoint.files import read_weights, safe_load, sniff
from mmseg_custom.checkpoint.lazy import release_pages
from mmseg_custom.errors import InputError


class Stranger:
    """A class that no checkpoint needs."""


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / 'x.pth')


@pytest.mark.parametrize('old', [False, True])
def test_what_mmcv_puts_into_metadata_is_read(path, old):
    meta = dict(best_score=np.float64(0.5), iters=np.int64(3), flag=np.bool_(True),
                name=np.str_('mIoU'), palette=np.array([[1, 2, 3]], np.uint8), order=range(3),
                config=ConfigDict(model=dict(depth=3)), CLASSES=('wall', 'sky'))
    torch.save(dict(meta=meta, state_dict={}), path, _use_new_zipfile_serialization=not old)
    read = safe_load(path)[0]['meta']
    assert read['best_score'] == 0.5 and read['iters'] == 3 and read['flag']
    assert read['name'] == 'mIoU' and read['order'] == range(3)
    assert read['palette'].tolist() == [[1, 2, 3]]
    assert read['config'] == dict(model=dict(depth=3)) and read['CLASSES'] == ('wall', 'sky')


@pytest.mark.parametrize('content', [Stranger(), torch.nn.Linear(1, 1), np.array([{}])],
                         ids=['class', 'module', 'objects'])
@pytest.mark.parametrize('old', [False, True])
def test_anything_else_is_refused_by_name(path, content, old):
    torch.save(dict(x=content), path, _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError, match=r'x.pth was refused: it asks for \w+\.[\w.]+, and'):
        safe_load(path)[0]


def test_allowing_types_does_not_outlast_the_reading(path):
    before = set(torch.serialization.get_safe_globals())
    torch.save(dict(x=np.float64(1)), path)
    safe_load(path)
    assert set(torch.serialization.get_safe_globals()) <= before


def test_safetensors_count_as_a_state_dict(tmp_path):
    path = str(tmp_path / 'x.safetensors')
    save_file(dict(a=torch.arange(3)), path)
    assert sniff(path) == 'safetensors'
    assert safe_load(path)[0]['state_dict']['a'].tolist() == [0, 1, 2]


def test_a_list_is_no_checkpoint(path):
    torch.save([1], path)
    with pytest.raises(InputError, match='holds a list: expected a dict'):
        safe_load(path)[0]


def test_the_name_of_a_file_does_not_matter(tmp_path):
    path = str(tmp_path / 'weights.safetensors')
    torch.save(dict(a=torch.ones(1)), path)
    assert sniff(path) == 'zip' and list(read_weights(path)) == ['a']


@pytest.mark.parametrize('first_byte', [0x80, 0x50])
def test_any_length_of_a_safetensors_header_is_recognised(tmp_path, first_byte):
    """Its first byte may be that of a pickle or of a zip file."""
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x100 + first_byte)
    path = tmp_path / 'x'
    path.write_bytes(len(header).to_bytes(8, 'little') + header + b'\7')
    assert read_weights(str(path))['a'].read().tolist() == [7]


def test_each_tensor_has_a_storage_of_its_own(tmp_path):
    """Or saving one of them would write the whole file."""
    path = str(tmp_path / 'x.safetensors')
    tensors = dict(a=torch.ones(1000), b=torch.ones(7, dtype=torch.bfloat16))
    save_file(tensors, path)
    for name, tensor in read_weights(path).items():
        assert tensor.read().untyped_storage().nbytes() == tensors[name].nbytes


def test_released_pages_are_read_again(path):
    torch.save(dict(a=torch.arange(100_000)), path)
    tensor = safe_load(path)[0]['a']
    total = tensor.sum()
    release_pages(tensor)
    assert tensor.sum() == total == torch.arange(100_000).sum()


def test_a_tiny_tensor_has_no_page_to_release(path):
    torch.save(dict(a=torch.arange(3)), path)
    tensor = safe_load(path)[0]['a']
    release_pages(tensor)
    assert tensor.tolist() == [0, 1, 2]
