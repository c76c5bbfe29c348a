"""Copies of a checkpoint's tensors that training leaves alone."""
from collections import OrderedDict

import pytest
import torch
from torch.distributed.tensor import DTensor, Shard, init_device_mesh

from mmseg_custom.checkpoint.lazy import LazyTensor
from mmseg_custom.checkpoint.save import FileSave
from mmseg_custom.checkpoint.staging import HostCopies, bytes_of


def content() -> dict:
    """What a checkpoint has: shared tensors, lazy ones, other strides, plain values."""
    shared, betas = torch.randn(3, 4), (0.9, 0.999)
    lazy = torch.arange(5.)
    return dict(
        meta=dict(iter=2, array=torch.ones(2, dtype=torch.int64), name='x'),
        state_dict=OrderedDict(a=shared, b=torch.randn(4, 3).t(), c=shared, empty=torch.empty(0)),
        optimizer=dict(state={0: dict(step=torch.tensor(3.), moment=LazyTensor(
            (5,), torch.float32, lambda: lazy.clone()))},
            param_groups=[dict(betas=betas, params=[0]), dict(betas=betas, params=[])]))


def test_a_copy_is_written_as_the_same_bytes(tmp_path):
    found = content()
    copied = HostCopies().copy(found)
    for name, written in (('a', found), ('b', copied)):  # the name of a file is in it
        (tmp_path / name).mkdir()
        FileSave(str(tmp_path / name / 'x.pth'), written, link_latest=True).write()
    assert (tmp_path / 'a/x.pth').read_bytes() == (tmp_path / 'b/x.pth').read_bytes()
    assert (tmp_path / 'b/latest.pth').resolve() == tmp_path / 'b/x.pth'


def test_training_leaves_a_copy_alone_and_the_next_one_takes_its_memory():
    found, copies = content(), HostCopies()
    expected = found['state_dict']['a'].clone()
    taken = copies.bytes_to_take(found, pinned=False)
    assert taken == bytes_of(found) == 4 * (12 + 12 + 1 + 5) + 8 * 2  # what is shared counts once
    first = copies.copy(found)
    found['state_dict']['a'].add_(1)
    found['optimizer']['param_groups'][0]['params'].append(7)
    assert torch.equal(first['state_dict']['a'], expected)
    assert first['state_dict']['a'] is first['state_dict']['c']
    assert first['optimizer']['param_groups'][0]['params'] == [0]

    assert copies.bytes_to_take(found, pinned=False) == 0
    address = first['state_dict']['a'].data_ptr()
    second = copies.copy(found)
    assert second['state_dict']['a'].data_ptr() == address
    assert torch.equal(second['state_dict']['a'], expected + 1)

    found['state_dict']['a'] = torch.zeros(7)  # of another shape: new memory
    assert copies.bytes_to_take(found, pinned=False) == 4 * 7 + 4 * 12  # the shared one, too
    assert torch.equal(copies.copy(found)['state_dict']['a'], torch.zeros(7))
    copies.release()
    assert copies.bytes_to_take(found, pinned=False) == bytes_of(found)


@pytest.mark.usefixtures('process_group')
def test_shards():
    mesh = init_device_mesh('cpu', (1,))
    tensor = DTensor.from_local(torch.randn(3, 2), mesh, [Shard(0)])
    copies = HostCopies()
    copied = copies.copy((dict(x=tensor), {}))[0]['x']
    tensor.to_local().zero_()
    assert isinstance(copied, DTensor) and copied.placements == tensor.placements
    assert copied.to_local().abs().sum() > 0 and copied.device.type == 'cpu'
    assert copies.bytes_to_take((dict(x=tensor), {}), pinned=False) == 0
    assert bytes_of((dict(x=tensor), {})) == 24
