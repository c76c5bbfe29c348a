"""Metrics and the best checkpoint of evaluations during training."""
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.data import SMALL_LINEAR, prepare, write_config
from helpers.logs import logged
from helpers.results import guesses
from mmcv.runner import IterBasedRunner
from mmseg.datasets import CustomDataset
from mmseg.utils import get_root_logger
from torch import nn
from torch.utils.data import DataLoader

from mmseg_custom.datasets.build import build_test_dataset
from mmseg_custom.engine.evaluation_hook import SegEvalHook
from mmseg_custom.engine.log_buffer import DeferredLogBuffer
from mmseg_custom.engine.train import build_evaluation
from mmseg_custom.errors import InputError
from mmseg_custom.evaluation import evaluate, pre_eval

SETTINGS = SMALL_LINEAR + """
evaluation = dict(interval=2, metric=['mIoU', 'mBIoU'], save_best='IoU.wall')
data['train']['max_image_num'] = 4
"""


def test_boundary_iou_and_the_best_of_a_class(zygote, run_tool, shared_data, tmp_path):
    config = write_config(tmp_path / 'config.py', shared_data, extra=SETTINGS)
    zygote.train(config, '--work-dir', tmp_path / 'run', '--seed', 0)
    lines = [line for line in map(json.loads, next((tmp_path / 'run').glob(
        '*.log.json')).open()) if 'IoU.wall' in line]
    assert len(lines) == 2 and lines[0]['IoU.wall'] != lines[1]['IoU.wall']
    best = max(lines, key=lambda line: line['IoU.wall'])
    assert lines[1]['best_IoU.wall'] == pytest.approx(best['IoU.wall'], abs=1e-4)
    kept, = (tmp_path / 'run').glob('best_*')
    assert kept.name == f'best_IoU.wall_iter_{2 * (lines.index(best) + 1)}.pth'
    record = torch.load(kept, weights_only=True)['meta']['hook_msgs']
    assert record['best_score'] == pytest.approx(best['IoU.wall'], abs=1e-4)
    run_tool('test.py', config, kept, '--eval', 'mIoU', 'mBIoU', '--work-dir', tmp_path / 'test')
    found = json.loads(next((tmp_path / 'test').glob('eval_*.json')).read_text())['metric']
    for name in ('mIoU', 'mBIoU', 'BIoU.wall'):
        assert best[name] == pytest.approx(found[name], abs=1e-4)


@pytest.mark.parametrize('settings, message', [
    ({'evaluation.save_best': 'IoU.wal'}, "save_best='IoU.wal'.*did you mean 'IoU.wall'"),
    ({'evaluation.metric': 'mIOU'}, 'evaluation.metric mIOU: expected some of mIoU')])
def test_wrong_names_are_refused_before_the_start(shared_data, tmp_path, settings, message):
    config = write_config(tmp_path / 'config.py', shared_data, extra=SETTINGS)
    with pytest.raises(InputError, match=message):
        prepare(config, settings=settings, work_dir=str(tmp_path))
    prepare(config, settings=settings, work_dir=str(tmp_path), no_validate=True)


@pytest.mark.parametrize('metric, best', [
    ('mIoU', 'mIoU'), ('mDice', 'mDice'), (['mFscore', 'mIoU'], 'mIoU')])
def test_auto_is_a_metric_that_is_measured(shared_data, tmp_path, metric, best):
    config = write_config(tmp_path / 'config.py', shared_data, extra=SETTINGS)
    run = prepare(config, settings={'evaluation.metric': metric, 'evaluation.save_best': 'auto'},
                  work_dir=str(tmp_path))
    assert run.cfg.evaluation.save_best == best


def test_several_metrics_of_several_data_sets(shared_data):
    parts = [dict(type='ADE20KDataset', data_root=str(shared_data), pipeline=[],
                  img_dir=f'images/{name}', ann_dir=f'annotations/{name}')
             for name in ('validation', 'training')]
    dataset = build_test_dataset(parts)
    guessed = [labels for part in dataset.datasets for labels in guesses(part, .3)]
    records = pre_eval(dataset, guessed, range(len(dataset)), boundary=True)
    runner = SimpleNamespace(log_buffer=DeferredLogBuffer(), iter=0,
                             logger=logging.getLogger('mmseg'))
    hook = SegEvalHook(DataLoader(dataset), 'cpu', metric=['mBIoU', 'mDice'])
    hook.evaluate(runner, records)
    expected = evaluate(dataset, records, ['mBIoU', 'mDice'])['metric']
    found = runner.log_buffer.output
    for name in ('mBIoU', '0_mBIoU', '1_BIoU.wall', 'mDice', '1_mDice'):
        assert found[name] == pytest.approx(expected[name], abs=1e-4), name


def test_a_class_that_is_nowhere_has_no_best(tmp_path):
    class Measured(CustomDataset):
        def __init__(self):
            pass

        def __len__(self):
            return 1

        def evaluate(self, results, logger):
            return {'mIoU': 0.5, 'IoU.flag': np.float32('nan')}

    runner = SimpleNamespace(
        log_buffer=DeferredLogBuffer(), logger=logging.getLogger('mmseg'), rank=0, iter=0,
        model=nn.Module(), meta=dict(hook_msgs={}), work_dir=str(tmp_path))
    hook = SegEvalHook(DataLoader(Measured()), 'cpu', save_best='IoU.flag')
    with logged() as lines:
        hook.take(runner, [])
    assert lines[1].startswith('IoU.flag is NaN: no pixel is of the class')
    assert runner.log_buffer.output == {'mIoU': 0.5, 'eval_iter_num': 1}
    assert hook.rule == 'greater' and {path.name for path in tmp_path.iterdir()} == {'best.json'}
    other = SegEvalHook(DataLoader(Measured()), 'cpu', save_best='IoU.wall')
    with pytest.raises(InputError, match="save_best='IoU.wall': the data set gives mIoU"):
        other.evaluate(runner, [])


@pytest.mark.parametrize('options, warns', [
    (dict(interval=9), True), (dict(interval=2, start=9), True), (dict(interval=8), False)])
def test_an_evaluation_beyond_the_end_is_a_warning(shared_data, tmp_path, options, warns):
    run = prepare(write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR),
                  settings={f'evaluation.{name}': value for name, value in options.items()})
    class Model(nn.Linear):
        def train_step(self):
            pass

    runner = IterBasedRunner(Model(1, 1), optimizer=torch.optim.SGD([torch.ones(1)], 1.),
                             work_dir=str(tmp_path), logger=get_root_logger(), max_iters=8)
    with logged() as lines:
        build_evaluation(run, runner)
    assert bool([line for line in lines if 'nothing is evaluated' in line]) == warns
