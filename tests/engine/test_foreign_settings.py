"""Settings of mmseg's and mmcv's trainings that have no or another effect are named."""
import json
import re

import pytest
from helpers.data import SMALL_LINEAR, prepare, write_config

from mmseg_custom.engine.config import load_config, resolve_config
from mmseg_custom.engine.foreign_settings import read_workflow
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.errors import InputError


def resolved(shared_data, tmp_path, extra):
    config = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR + extra)
    return resolve_config(load_config(str(config)), RunOptions())


@pytest.mark.parametrize('extra, message', [
    ('fp16 = dict(loss_scale=512.)', 'fp16 of the config has no effect'),
    ("optimizer_config = dict(type='Fp16OptimizerHook', loss_scale='dynamic')",
     "optimizer_config.type='Fp16OptimizerHook' means 'OptimizerHook' here"),
    ('total_epochs = 3', 'total_epochs=3 has no effect: runner='),
    ('seed = 3', "seed of the config has no effect, as with mmseg's training: give --seed 3"),
    ('auto_scale_lr = dict(enable=True, base_batch_size=16)', 'auto_scale_lr .*has no effect'),
    ('auto_resume = True', 'auto_resume of the config has no effect.*give --auto-resume'),
    ("data['train_dataloader'] = dict(shuffle=False)", 'shuffle=False has no effect')])
def test_what_has_no_effect_is_named(shared_data, tmp_path, extra, message):
    _, notes = resolved(shared_data, tmp_path, extra)
    assert [note for note in notes if re.search(message, note)]


def test_what_has_an_effect_is_not(shared_data, tmp_path):
    cfg, notes = resolved(shared_data, tmp_path, """
fp16 = None
optimizer_config = dict(type='GradientCumulativeFp16OptimizerHook', loss_scale=512.,
                        cumulative_iters=2, grad_clip=dict(max_norm=1.0))
data['shuffle'] = True
""")
    assert len([note for note in notes if 'TensorBoard' not in note]) == 1
    assert cfg.optimizer_config == dict(type='GradientCumulativeOptimizerHook',
                                        cumulative_iters=2, grad_clip=dict(max_norm=1.0))


@pytest.mark.parametrize('workflow, expected', [
    (None, (1, 0)), ([('train', 1)], (1, 0)), ([['train', 10], ['val', 2]], (10, 2))])
def test_workflows(workflow, expected):
    assert read_workflow(workflow) == expected


@pytest.mark.parametrize('workflow', [
    [('val', 1)], [True], [('train', 0)], [('train', 1), ('test', 1)], [('train',)],
    [('train', 1), ('val', 1), ('train', 1)]])
def test_workflows_that_are_refused(shared_data, tmp_path, workflow):
    config = write_config(tmp_path / 'config.py', shared_data, extra=f'workflow = {workflow}')
    with pytest.raises(InputError, match='^workflow=.*expected .*val'):
        prepare(config, work_dir=str(tmp_path))


def test_a_run_without_hooks_and_schedule_trains(zygote, shared_data, tmp_path):
    """Mmseg's own training takes no step where optimizer_config is None, and says nothing."""
    config = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR + """
optimizer_config, lr_config = None, None
log_config = dict(interval=1)
data['train']['max_image_num'] = 2
""")
    zygote.train(config, '--work-dir', tmp_path / 'run', '--no-validate', '--seed', 0)
    lines = [json.loads(line) for line in next((tmp_path / 'run').glob('*.log.json')).open()]
    assert lines[-1]['lr'] == 0.01 and lines[-1]['loss'] < lines[1]['loss'] - 0.1
