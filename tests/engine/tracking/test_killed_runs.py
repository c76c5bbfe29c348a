"""Trainings that are killed and resumed: each tracker has each iteration once, with pictures."""
import json
import os
import signal
from importlib.util import find_spec

import numpy as np
import pytest
from helpers.data import SMALL_LINEAR, write_config
from helpers.runs import wait_for
from helpers.tracked import events_of, rows_of_wandb, run_of_mlflow

RUN = SMALL_LINEAR + """
data['train']['max_image_num'] = 4
runner = dict(max_iters=8)
evaluation = dict(interval=2, show_images=2)
workflow = [('train', 4), ('val', 1)]
log_config = dict(interval=1, hooks=[dict(type='TextLoggerHook'), {hook}])
"""
HOOKS = {
    'tensorboard': "dict(type='TensorboardLoggerHook')",
    'wandb': "dict(type='WandbLoggerHook', init_kwargs=dict(project='seg', mode='offline'))",
    'mlflow': "dict(type='MlflowLoggerHook', exp_name='seg', tracking_uri='sqlite:///{db}')"}


def figures_in_the_log(folder):
    """Returns the same figures of the log, in which an iteration may be twice: name -> points."""
    found = {'train/loss': {}, 'val/mIoU': {}, 'val/loss_val': {}}
    for path in sorted(folder.glob('*.log.json')):
        for line in map(json.loads, path.read_text().splitlines()):
            for name, points in found.items():
                prefix, _, key = name.partition('/')
                if line.get('mode') == prefix and key in line:
                    points[line.get('step', line['iter'])] = line[key]
    return {name: sorted(points.items()) for name, points in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize('tracker, ranks', [('tensorboard', 2), ('wandb', 1), ('mlflow', 1)])
def test_killed_and_resumed(zygote, shared_data, tmp_path, tracker, ranks):
    if find_spec(tracker) is None:
        pytest.skip(f'{tracker} is not installed')
    run, log, db = tmp_path / 'run', tmp_path / 'log.txt', tmp_path / 'mlflow.db'
    config = write_config(tmp_path / 'config.py', shared_data, extra=RUN.replace(
        '{hook}', HOOKS[tracker].replace('{db}', str(db))) + (
            "engine = dict(type='fsdp2')" if ranks > 1 else ''))
    options = [config, '--work-dir', run, '--seed', 0, '--auto-resume']
    processes = zygote.start_training(log, *options, ranks=ranks)
    wait_for(log, 'Iter [5/8]')
    for process in processes:
        os.kill(process, signal.SIGKILL)
    assert {zygote.wait(process) for process in processes} == {-signal.SIGKILL}
    text = zygote.train(*options, ranks=ranks)
    assert 'lost' not in text and 'resumed after iteration 4' in text
    figures, pictures = (run_of_mlflow(run, f'sqlite:///{db}') if tracker == 'mlflow' else dict(
        tensorboard=events_of, wandb=rows_of_wandb)[tracker](run))
    expected = figures_in_the_log(run)
    assert [[step for step, _ in points] for points in expected.values()] == [
        list(range(1, 9)), [2, 4, 6, 8], [4, 8]]
    for name, points in expected.items():
        assert [step for step, _ in figures[name]] == [step for step, _ in points]
        assert [value for _, value in figures[name]] == pytest.approx(
            [value for _, value in points], abs=1e-4)
    assert figures['val/best_mIoU'][-1][1] == max(value for _, value in figures['val/mIoU'])
    check_pictures(pictures)


def check_pictures(pictures):
    """Checks that all evaluations show the same images and labels, with other predictions."""
    assert list(sorted(pictures)) == [2, 4, 6, 8]
    assert {len(found) for found in pictures.values()} == {2}
    first, last = (np.stack([part(pictures[step][0], i) for i in range(3)]) for step in (2, 8))
    assert (first[:2] == last[:2]).all() and (first[2] != last[2]).any()


def part(picture, number):
    """Returns image, ground truth or prediction of a picture, without title and legend."""
    column = (picture.shape[1] - 2 * 24 - 2 * 10) // 3
    left = 24 + number * (column + 10)
    return picture[60:200, left:left + column]
