"""slurm_train.sh on a real Slurm of two nodes: preempted, requeued, and the same result."""
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.commands import ROOT, free_port
from helpers.runs import assert_same_end, spread, wait_for, write_small_config
from slurm.cluster import Cluster, missing

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(missing() is not None, reason=str(missing()))]


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    """The environment of the commands: two tasks, each on a node of its own."""
    with Cluster(tmp_path_factory.mktemp('slurm') / 'cluster') as env:
        yield {**env, 'GPUS': '2', 'GPUS_PER_NODE': '1', 'CPUS_PER_TASK': '1',
               'MASTER_ADDR': '127.0.0.1', 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'}


def slurm_train(env: dict, config: Path, work_dir: Path, **more: str) -> str:
    done = subprocess.run(
        ['sh', ROOT / 'slurm_train.sh', 'tiny', work_dir.name, config, '--work-dir', work_dir,
         '--seed', '5', '--device', 'cpu', *spread(2)], text=True, timeout=300, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**env, 'PORT': free_port(), **more})
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def test_preempted_and_requeued(slurm, tmp_path):
    config = write_small_config(tmp_path)
    text = slurm_train(slurm, config, tmp_path / 'whole')
    assert 'training on cpu x 2, 4 images a step' in text

    log = tmp_path / 'log.txt'
    text = slurm_train(slurm, config, tmp_path / 'run', BATCH='1', SBATCH_ARGS=f'--output={log}')
    job = re.search(r'Submitted batch job (\d+)', text).group(1)
    wait_for(tmp_path / 'run/iter_2.pth', seconds=150)
    subprocess.run(['scancel', '--signal=USR1', job], env=slurm, check=True)
    wait_for(log, 'checkpoint written, requeued')
    assert not (tmp_path / 'run/iter_8.pth').exists()
    wait_for(tmp_path / 'run/iter_8.pth', seconds=200)
    end = time.monotonic() + 60
    while job in subprocess.run(['squeue', '-h', '-o', '%i', '-t', 'pending,running,completing'],
                                env=slurm, check=True, text=True, capture_output=True).stdout:
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.5)
    assert 'stopped by SIGUSR1 after iteration' in log.read_text()
    assert_same_end(tmp_path / 'run', tmp_path / 'whole')
