"""Joining a process group; as a script, this file is one of several processes of a Slurm job."""
import json
import os
import socket
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from helpers.commands import free_port

from mmseg_custom.distributed import launch
from mmseg_custom.distributed.collectives import cpu_group, new_group
from mmseg_custom.distributed.launch import DistParams
from mmseg_custom.distributed.mesh import build_mesh
from mmseg_custom.errors import InputError

VARIABLES = ('MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE',
             'GLOO_SOCKET_IFNAME')


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in VARIABLES:  # what a test leaves there is taken back
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)


@pytest.mark.parametrize('nodes, first', [
    ('gpu07', 'gpu07'), ('gpu[07-09,12],cpu1', 'gpu07'), ('a-b[1,3]', 'a-b1'), ('n1,n2', 'n1')])
def test_first_host(nodes, first):
    assert launch._first_host(nodes) == first


def set_slurm(monkeypatch) -> None:
    for key, value in dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0',
                           SLURM_NODELIST='localhost').items():
        monkeypatch.setenv(key, value)


def test_slurm_environment(monkeypatch):
    set_slurm(monkeypatch)
    params = DistParams.of(dict(backend='nccl', timeout_minutes=7, port=int(free_port())))
    assert launch.init_process_group('slurm', 'cpu', params) == []
    try:
        assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, 'gloo')
        for group in (dist.group.WORLD, new_group(), new_group([0])):
            backend = group._get_backend(torch.device('cpu'))
            assert backend.options._timeout == timedelta(minutes=7)
        assert cpu_group() is None
    finally:
        dist.destroy_process_group()


def test_launcher_without_its_environment(monkeypatch):
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    with pytest.raises(InputError, match='SLURM_PROCID is not set; start with'):
        launch.init_process_group('slurm', 'cpu')


@pytest.mark.parametrize('backend, backends, bound', [
    ('nccl', 'cpu:gloo,cuda:nccl', torch.device('cuda', 2)), ('gloo', 'gloo', None)])
def test_group_on_gpus(monkeypatch, backend, backends, bound):
    """The GPU is set before anything goes through the group, and nccl is bound to it."""
    set_slurm(monkeypatch)
    monkeypatch.setenv('SLURM_LOCALID', '2')
    calls = []
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda i: SimpleNamespace(uuid='U'))
    monkeypatch.setattr(launch, 'use_gpu', lambda index: calls.append(index))
    monkeypatch.setattr(dist, 'init_process_group', lambda *names, **options: calls.append(
        (*names, options['timeout'], options['device_id'])))
    launch.init_process_group('slurm', 'cuda', DistParams(backend, port=int(free_port())))
    assert calls == [2, (backends, timedelta(hours=1), bound)]


def test_processes_that_do_not_come(monkeypatch):
    set_slurm(monkeypatch)
    monkeypatch.setenv('SLURM_NTASKS', '2')
    port = free_port()
    with pytest.raises(InputError, match=f'rank 0: not all of 2 processes met at localhost:{port} '
                                         r'\(Timed out.*\): start all'):
        launch.init_process_group('slurm', 'cpu', DistParams('nccl', 0.01, int(port)))


def test_port_of_another_job(monkeypatch):
    set_slurm(monkeypatch)
    with socket.socket() as other:
        other.bind(('0.0.0.0', 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f'port {port} of this host is taken'):
            launch.init_process_group('slurm', 'cpu', DistParams(port=port))


@pytest.mark.parametrize('options, message', [
    (dict(timeout=600), "unknown key in dist_params: 'timeout' .did you mean 'timeout_minutes'"),
    (dict(timeout_minutes=0), 'dist_params.timeout_minutes=0: expected more than 0 minutes'),
    (dict(timeout_minutes='1h'), "timeout_minutes='1h': expected more than 0")])
def test_wrong_params(options, message):
    with pytest.raises(InputError, match=message):
        DistParams.of(options)


def test_backends():
    assert launch.backends_of('nccl') == 'cpu:gloo,cuda:nccl'
    assert launch.backends_of('gloo') == 'gloo'
    assert launch.backends_of('cpu:gloo,cuda:nccl') == 'cpu:gloo,cuda:nccl'


def test_gpu_of_a_process():
    assert [launch.gpu_of(i, 4, 'nccl') for i in range(4)] == [0, 1, 2, 3]
    assert launch.gpu_of(3, 1, 'nccl') == 0  # srun --gpus-per-task=1 shows each its own
    assert [launch.gpu_of(i, 2, 'gloo') for i in range(4)] == [0, 1, 0, 1]
    with pytest.raises(InputError, match='process 2 of this node has no GPU: 2 are visible; start '
                                         'at most 2 .*dist_params.backend=gloo'):
        launch.gpu_of(2, 2, 'nccl')


def test_two_processes_on_one_gpu():
    launch.refuse_shared_gpus(['n1 boot', 'n1 boot', 'n2 boot'], ['A', 'B', 'A'])
    launch.refuse_shared_gpus(['n1 boot'] * 2, [None, None])
    with pytest.raises(InputError, match=r'ranks 0 and 2 have the same GPU \(A\) of host n1:'):
        launch.refuse_shared_gpus(['n1 boot'] * 3, ['A', 'B', 'A'])


@pytest.mark.parametrize('rank, addresses, peer, chosen', [
    (2, (None, None, '10.0.0.2', '10.0.0.2'), {}, 'eth2'),
    (0, (None, None, '10.0.0.2', '10.0.0.2'), {'10.0.0.2': '10.0.0.1'}, 'eth1'),
    (0, ('10.0.0.1', '10.0.0.1', '10.0.0.2', '10.0.0.2'), {}, 'eth1'),
    (0, (None,) * 4, {}, None)])  # containers that share a network
def test_interface_of_gloo(monkeypatch, rank, addresses, peer, chosen):
    """Host names resolve to 127.0.1.1, as on Debian."""
    monkeypatch.setattr(launch, 'gloo_uses_loopback', lambda: True)
    monkeypatch.setattr(launch, 'address_towards', peer.get)
    monkeypatch.setattr(launch, 'interface_of', {'10.0.0.1': 'eth1', '10.0.0.2': 'eth2'}.get)
    notes = launch._choose_interface(rank, ('a boot', 'a boot', 'b boot', 'b boot'), addresses)
    assert os.environ.get('GLOO_SOCKET_IFNAME') == chosen and bool(notes) == bool(chosen)


def test_interface_that_cannot_be_told(monkeypatch):
    monkeypatch.setattr(launch, 'gloo_uses_loopback', lambda: True)
    monkeypatch.setattr(launch, 'interface_of', lambda address: None)
    with pytest.raises(InputError, match='host b resolves to a loopback address.*set '
                                         'GLOO_SOCKET_IFNAME'):
        launch._choose_interface(1, ('a boot', 'b boot'), (None, '10.0.0.2'))
    assert launch._choose_interface(1, ('a boot', 'a boot'), ('10.0.0.2', '10.0.0.2')) == []


def test_one_gpu_a_task_in_turns(zygote, tmp_path):
    """Each task sees one GPU alone, and ranks go round the hosts: rows are hosts, not ranks."""
    zygote.run(__file__, tmp_path, free_port(), ranks=4)
    found = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(4)]
    for rank, process in enumerate(found):
        assert process['mesh'] == [[0, 2], [1, 3]]
        assert process['place'] == [['replicate', rank % 2], ['shard', rank // 2]]
        assert process['groups'] == [[0, 1] if rank < 2 else [2, 3], [rank % 2, rank % 2 + 2]]
    assert [process['first'] for process in found] == [True, True, False, False]
    assert [process['local'] for process in found] == [['0', '2'], ['0', '2'], ['1', '2'],
                                                       ['1', '2']]


def join(folder: Path, port: str) -> None:
    """Runs on four ranks of two pretended hosts: writes what each finds."""
    rank = int(os.environ['RANK'])
    os.environ.update(SLURM_PROCID=str(rank), SLURM_NTASKS='4', SLURM_LOCALID='0',
                      SLURM_NODELIST='localhost', MASTER_ADDR='127.0.0.1', MASTER_PORT=port,
                      NCCL_HOSTID=f'host{rank % 2}')
    launch.init_process_group('slurm', 'cpu')
    mesh = build_mesh('cpu', hybrid=True)
    (folder / f'{rank}.json').write_text(json.dumps(dict(
        mesh=mesh.mesh.tolist(), first=launch.is_first_of_node(),
        place=list(zip(mesh.mesh_dim_names, mesh.get_coordinate())),
        groups=[dist.get_process_group_ranks(mesh.get_group(i)) for i in range(2)],
        local=[os.environ['LOCAL_RANK'], os.environ['LOCAL_WORLD_SIZE']])))
    dist.destroy_process_group()


if __name__ == '__main__':
    join(Path(sys.argv[1]), sys.argv[2])
