"""Loggers of other packages: one line where a package is missing, all figures where it is not."""
import json

import pytest
from helpers.data import SMALL_LINEAR, prepare, write_config

from mmseg_custom.engine.loggers import PACKAGES, check_loggers
from mmseg_custom.errors import InputError

# What W&B does with steps: one that was closed takes no more figures.
WANDB = """
import json

class Artifact:
    def __init__(self, **options):
        pass

    def add_file(self, path):
        pass

def init(path):
    global target, steps, closed
    target, steps, closed = path, {}, 0

def log(tags, step, commit):
    global closed
    if step > closed:
        steps.setdefault(step, {}).update(tags)
        closed = max(closed, step if commit else max(steps) - 1)

def log_artifact(artifact):
    pass

def join():
    with open(target, 'w') as file:
        json.dump(steps, file, default=float)
"""
MLFLOW = """
import json
from pathlib import Path

TARGET = Path(__file__).parent / 'mlflow.json'

def log_metrics(tags, step):
    with TARGET.open('a') as file:
        file.write(json.dumps(dict(tags, step=step), default=float) + '\\n')
"""


@pytest.mark.parametrize('place', ['log_config.hooks', 'custom_hooks'])
@pytest.mark.parametrize('kind', PACKAGES)
def test_a_package_that_is_missing_is_named(place, kind):
    cfg = (dict(log_config=dict(interval=1, hooks=[dict(type='TextLoggerHook'), dict(type=kind)]))
           if place == 'log_config.hooks' else dict(custom_hooks=[dict(type=kind)]))
    with pytest.raises(InputError, match=f'{place}: {kind} needs .*{PACKAGES[kind][1]}.*: pip in'):
        check_loggers(cfg)


def test_before_anything_is_loaded(shared_data, tmp_path):
    config = write_config(tmp_path / 'config.py', shared_data, extra="""
model = dict(pretrained='missing.pth')
log_config = dict(hooks=[dict(type='WandbLoggerHook')])
""")
    with pytest.raises(InputError, match='WandbLoggerHook needs the package wandb'):
        prepare(config, work_dir=str(tmp_path))
    prepare(config, ('test',), owns_work_dir=False, checkpoint='none')  # tests need none of them


def test_validations_arrive_at_their_iteration(zygote, shared_data, tmp_path):
    (tmp_path / 'stand_ins').mkdir()
    (tmp_path / 'stand_ins/wandb.py').write_text(WANDB)
    (tmp_path / 'stand_ins/mlflow').mkdir()
    (tmp_path / 'stand_ins/mlflow/__init__.py').write_text(MLFLOW)
    (tmp_path / 'stand_ins/mlflow/pytorch.py').write_text('')
    config = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR + f"""
import sys
sys.path.append('{tmp_path}/stand_ins')
evaluation = dict(interval=2)
log_config = dict(interval=1, hooks=[
    dict(type='TextLoggerHook'), dict(type='MlflowLoggerHook', log_model=False),
    dict(type='WandbLoggerHook', init_kwargs=dict(path='{tmp_path}/wandb.json'))])
data['train']['max_image_num'] = 4
workflow = [('train', 4), ('val', 1)]
""")
    zygote.train(config, '--work-dir', tmp_path / 'run', '--seed', 0)
    logged = map(json.loads, next((tmp_path / 'run').glob('*.log.json')).open())
    expected = [line['mIoU'] for line in logged if 'mIoU' in line]
    found = json.loads((tmp_path / 'wandb.json').read_text())
    assert list(found) == ['1', '2', '3', '4'] and len(expected) == 2
    assert all('train/loss' in step for step in found.values())
    assert [step.get('val/mIoU') for step in found.values()] == [
        None, pytest.approx(expected[0], abs=1e-4), None, pytest.approx(expected[1], abs=1e-4)]
    assert found['4']['val/best_mIoU'] == pytest.approx(max(expected), abs=1e-4)
    assert 'val/loss_val' in found['4'] and 'val/loss_val' not in found['2']
    by_mlflow = [json.loads(line) for line in (tmp_path / 'stand_ins/mlflow/mlflow.json').open()]
    assert [line['step'] for line in by_mlflow if 'val/mIoU' in line] == [2, 4]
    assert by_mlflow[-2]['val/best_mIoU'] == found['4']['val/best_mIoU']
