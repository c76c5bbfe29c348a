"""Sweeps: each head is a tracked run of its own, in one group."""
import json
from importlib.util import find_spec

import pytest
from helpers.data import SMALL_LINEAR, write_config
from helpers.tracked import rows_of_wandb, run_of_mlflow

SWEEP = SMALL_LINEAR + """
data['train']['max_image_num'] = 4
log_config = dict(interval=1, hooks=[
    dict(type='TextLoggerHook'), dict(type='WandbLoggerHook', init_kwargs=dict(mode='offline')),
    dict(type='MlflowLoggerHook', exp_name='seg', tracking_uri='sqlite:///{db}')])
evaluation = dict(interval=2, show_images=1)
sweep = dict(lr=[1e-3, 1e-2])
"""


@pytest.mark.slow
def test_heads_are_runs_of_a_group(zygote, shared_data, tmp_path):
    if find_spec('wandb') is None or find_spec('mlflow') is None:
        pytest.skip('wandb or mlflow is not installed')
    uri = f'sqlite:///{tmp_path}/mlflow.db'
    config = write_config(tmp_path / 'config.py', shared_data, extra=SWEEP.replace(
        '{db}', f'{tmp_path}/mlflow.db'))
    zygote.run('tools/sweep.py', config, '--work-dir', tmp_path / 'sweep', '--seed', 0)
    from mlflow import MlflowClient
    client, records = MlflowClient(uri), set()
    for name in ('lr0.001', 'lr0.01'):
        folder = tmp_path / 'sweep' / name
        for figures, pictures in (rows_of_wandb(folder), run_of_mlflow(folder, uri)):
            assert [step for step, _ in figures['train/loss']] == [1, 2, 3, 4]
            assert [step for step, _ in figures['val/mIoU']] == list(pictures) == [2, 4]
        record = json.loads((folder / 'tracking.json').read_text())
        records |= set(record.values())
        run = client.get_run(record['mlflow'])
        assert (run.info.run_name, run.data.tags['sweep']) == (name, 'sweep')
        content = next(folder.glob('wandb/offline-run-*/*.wandb')).read_bytes()
        assert b'sweep' in content and name.encode() in content
    assert len(records) == 4
