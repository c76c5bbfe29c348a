import pytest
import torch
import torch.distributed as dist
from helpers.commands import free_port

from mmseg_custom.distributed import launch
from mmseg_custom.errors import InputError


@pytest.mark.parametrize('nodes, first', [
    ('gpu07', 'gpu07'), ('gpu[07-09,12],cpu1', 'gpu07'), ('a-b[1,3]', 'a-b1'), ('n1,n2', 'n1')])
def test_first_host(nodes, first):
    assert launch._first_host(nodes) == first


def test_slurm_environment(monkeypatch):
    for key, value in dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0',
                           SLURM_NODELIST='localhost', PORT=free_port()).items():
        monkeypatch.setenv(key, value)
    for key in ('MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(key, raising=False)
    launch.init_process_group('slurm', 'cpu')
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, 'gloo')
    dist.destroy_process_group()


def test_launcher_without_its_environment(monkeypatch):
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    with pytest.raises(InputError, match='SLURM_PROCID is not set; start with'):
        launch.init_process_group('slurm', 'cpu')


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert launch.choose_device() == launch.choose_device('cpu') == 'cpu'
    with pytest.raises(InputError, match='no CUDA GPU'):
        launch.choose_device('cuda')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert launch.choose_device() == 'cuda'
