"""Logs of a training, over all its starts, as hooks of this project and of mmcv write them.

`tests/engine/run_folder/test_folder.py` reads those of real runs.
"""
import json
import math

import numpy as np
import pytest

from mmseg_custom.evaluation.training_log import read_training_log


def write_log(folder, number: int, *lines: dict, end: str = '\n') -> None:
    text = '\n'.join(json.dumps(line) for line in lines)
    (folder / f'20261126_19000{number}.log.json').write_text(text + end)


def trained(iteration: int, loss: float = 1., lr: object = 0.1, **more) -> dict:
    return {'mode': 'train', 'epoch': 1, 'iter': iteration, 'lr': lr, 'loss': loss, **more}


def evaluated(miou: float, **more) -> dict:
    return {'mode': 'val', 'epoch': 1, 'iter': 40, 'lr': 0.1, 'mIoU': miou, **more}


def curve(log, name: str) -> dict[int, float]:
    found = log.metrics[name]
    return dict(zip(found.iterations.tolist(), found.values.tolist()))


def test_later_starts_replace_what_they_repeat(tmp_path):
    """Also what an earlier start, or another run in the folder, logged beyond."""
    write_log(tmp_path, 1, {'seed': 0, 'start': 0}, *(trained(i, 9.) for i in (5, 10, 15, 20)),
              evaluated(0.5, step=20), trained(25, 9.))
    write_log(tmp_path, 2, {'seed': 0, 'start': 12}, trained(15, 2.), trained(18, 3.))
    log = read_training_log(str(tmp_path))
    assert log.iterations.tolist() == [5, 10, 15, 18] and not log.metrics
    assert log.losses['loss'].tolist() == [9, 9, 2, 3]
    write_log(tmp_path, 3, {'seed': 1, 'start': 0})
    assert read_training_log(str(tmp_path)).is_empty


def test_logs_of_mmcvs_own_hook(tmp_path):
    """Which tell neither where a run starts nor the iteration of an evaluation."""
    write_log(tmp_path, 1, {'seed': 0}, trained(50), trained(100), evaluated(0.2), trained(150),
              {'mode': 'val', 'epoch': 1, 'iter': 170, 'lr': 0.1, 'loss_val': 0.7})
    write_log(tmp_path, 2, {'seed': 0}, evaluated(0.25), trained(150), trained(200),
              evaluated(0.3))
    log = read_training_log(str(tmp_path))
    assert log.iterations.tolist() == [50, 100, 150, 200]
    assert curve(log, 'mIoU') == {100: 0.25, 200: 0.3} and 'loss_val' not in log.losses


def test_logs_that_count_within_epochs(tmp_path):
    lines = [{**trained(i), 'epoch': epoch} for epoch in (1, 2, 3) for i in (10, 20)]
    lines.insert(4, {**evaluated(0.4), 'epoch': 2})
    write_log(tmp_path, 1, {'seed': 0}, *lines)
    log = read_training_log(str(tmp_path))
    assert log.iterations.tolist() == [10, 20, 30, 40, 50, 60] and curve(log, 'mIoU') == {40: 0.4}
    exact = [{**line, 'step': 2 * line['epoch'] * line['iter']} for line in lines[:2]]
    write_log(tmp_path, 1, {'seed': 0, 'start': 0}, *exact)
    assert read_training_log(str(tmp_path)).iterations.tolist() == [20, 40]


def test_damaged_lines_and_values_that_are_none(tmp_path):
    good = trained(2, float('nan'), lr=dict(head=0.1, backbone=0.01), grad_norm=None)
    write_log(tmp_path, 1, trained(1, lr=dict(head=0.2)), good, end='\n{"mode": "train", "it')
    path = tmp_path / '20261126_190001.log.json'
    path.write_bytes(path.read_bytes() + b'\xff\n[1]\n"text"\n7\n' + json.dumps(
        dict(mode='train', iter='3', loss='x')).encode() + b'\n' + b'[' * 200_000 + b'\n')
    write_log(tmp_path, 2, end='')
    log = read_training_log(str(tmp_path))
    assert log.iterations.tolist() == [1, 2]
    np.testing.assert_array_equal(log.losses['loss'], [1, math.nan])
    np.testing.assert_array_equal(log.learning_rates['head'], [0.2, 0.1])
    np.testing.assert_array_equal(log.learning_rates['backbone'], [math.nan, 0.01])
    assert np.isnan(log.figures['grad_norm']).all()


@pytest.mark.parametrize('folder', ['.', 'missing'])
def test_folder_without_logs(tmp_path, folder):
    log = read_training_log(str(tmp_path / folder))
    assert log.is_empty and log.iterations.shape == (0,) and not log.losses and not log.classes
