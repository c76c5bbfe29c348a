"""The mesh of FSDP2's processes."""
import pytest
import torch
import torch.distributed as dist
from helpers.nccl_group import nccl_group

from mmseg_custom.distributed import mesh
from mmseg_custom.errors import InputError


def test_a_mesh_is_of_the_group_itself(monkeypatch, process_group):
    """Torch would put nccl beside gloo; processes that share a GPU cannot have it."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert mesh.build_mesh('cuda', hybrid=False).get_group() is dist.group.WORLD


def test_rows_of_a_mesh_keep_the_backends():
    with nccl_group(8, host=True):
        rows = mesh.mesh_of_rows([[0, 2, 4, 6], [1, 3, 5, 7]], 'cuda')
        assert [dist.get_process_group_ranks(rows.get_group(name)) for name in rows.mesh_dim_names
                ] == [[0, 1], [0, 2, 4, 6]]
        assert {dist.get_backend_config(rows.get_group(name)) for name in rows.mesh_dim_names} == {
            'cpu:fake,cuda:fake'}


def test_hosts_with_different_numbers_of_processes(monkeypatch, process_group):
    monkeypatch.setattr(mesh, 'gather_to_all', lambda host: ['a', 'a', 'b'])
    with pytest.raises(InputError, match='engine.hybrid: the hosts have different numbers of '
                                         'processes, 1 to 2: start'):
        mesh.build_mesh('cpu', hybrid=True)
