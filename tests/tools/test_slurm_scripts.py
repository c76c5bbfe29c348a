"""Options that the Slurm scripts give to srun and sbatch, which here print them."""
import os

import pytest
from helpers.commands import ROOT, run


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    for name in ('srun', 'sbatch'):
        command = tmp_path / name
        command.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        command.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')


@pytest.mark.parametrize('batch', ['0', '1', 'inside'])
def test_each_task_has_its_cpus(slurm, batch):
    """Also in a job that is queued: srun does not take their number from the job."""
    out = run('sh', ROOT / 'slurm_train.sh', 'gpu', 'name', 'config.py', GPUS='16', BATCH=batch,
              CPUS_PER_TASK='7', SLURM_JOB_ID='1')
    assert '--cpus-per-task=7' in out and out.startswith('sbatch' if batch == '1' else 'srun')
