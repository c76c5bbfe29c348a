"""Commands that a page names are those of the launcher that started the run."""
from types import SimpleNamespace

import pytest

from mmseg_custom.engine.run_folder.commands import resume_command, start_command

LAUNCHED = ['/x/tools/train.py', 'configs/a.py', '--launcher', 'pytorch', '--deterministic',
            '--seed', '0', '--work-dir', 'my run']


def run_of(launcher: str, ranks: int = 8) -> SimpleNamespace:
    return SimpleNamespace(options=SimpleNamespace(launcher=launcher),
                           batch=SimpleNamespace(ranks=ranks),
                           cfg=SimpleNamespace(filename='configs/a.py'))


@pytest.mark.parametrize('launcher, argv, environment, command', [
    ('none', ['tools/train.py', 'configs/a.py', '--cfg-options', 'a="b c"'], {},
     """python tools/train.py configs/a.py --cfg-options 'a="b c"'"""),
    ('pytorch', LAUNCHED, dict(LOCAL_WORLD_SIZE='8', GROUP_WORLD_SIZE='1'),
     "sh dist_train.sh configs/a.py 8 --seed 0 --work-dir 'my run'"),
    ('pytorch', LAUNCHED, dict(LOCAL_WORLD_SIZE='4', GROUP_WORLD_SIZE='2', GROUP_RANK='0',
                               MASTER_ADDR='10.0.0.1'),
     'NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 sh dist_train.sh configs/a.py 4 --seed 0 '
     "--work-dir 'my run'"),
    ('pytorch', ['tools/sweep.py', 'configs/a.py', '--launcher=pytorch', '--lr', '1'], {},
     'python tools/torchrun.py --nproc_per_node=8 tools/sweep.py configs/a.py --lr 1 --launcher '
     'pytorch'),
    ('slurm', ['tools/train.py', 'configs/a.py', '--launcher=slurm'],
     dict(SLURM_JOB_PARTITION='gpu', SLURM_JOB_NAME='a'),
     'GPUS=8 sh slurm_train.sh gpu a configs/a.py'),
    ('pytorch', ['/x/tools/test.py', 'configs/a.py', 'a.pth', '--launcher', 'pytorch', '--eval',
                 'mIoU'], dict(LOCAL_WORLD_SIZE='8'),
     'sh dist_test.sh configs/a.py a.pth 8 --eval mIoU'),
    ('mpi', ['tools/train.py', 'configs/a.py', '--launcher', 'mpi'], {},
     'mpirun -n 8 python tools/train.py configs/a.py --launcher mpi')])
def test_start(launcher, argv, environment, command):
    assert start_command(run_of(launcher), argv, environment) == command


def test_resuming_leaves_out_what_was_of_the_start():
    argv = ['tools/train.py', 'configs/a.py', '--resume-from', 'x.pth', '--overwrite', '--seed=3',
            '--auto-resume', '--resume-from=y.pth', '--engine', 'ddp']
    assert resume_command(run_of('none'), argv, {}) == (
        'python tools/train.py configs/a.py --seed=3 --engine ddp --auto-resume')


def test_from_another_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert start_command(run_of('none'), ['train.py', 'a.py'], {}).endswith('/tools/train.py a.py')
