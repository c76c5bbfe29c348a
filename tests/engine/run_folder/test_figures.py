"""Figures of a page: the last and the best evaluation, and classes by their names."""
import numpy as np

from mmseg_custom.engine.run_folder.figures import figures_of, write_classes
from mmseg_custom.engine.run_folder.page import render
from mmseg_custom.engine.run_folder.record import Start
from mmseg_custom.evaluation.training_log import Curve, TrainingLog


def log_of(metrics: dict, classes: tuple = ()) -> TrainingLog:
    return TrainingLog(
        np.array([10, 20]), dict(loss=np.array([2., 1.5])), dict(lr=np.array([.1, .1])),
        dict(time=np.array([0.5, 0.25]), memory=np.array([1024., 2048.])),
        {name: Curve(np.array(list(values)), np.array(list(values.values())))
         for name, values in metrics.items()}, classes)


METRICS = {'mIoU': {10: .4, 20: .3}, 'aAcc': {10: .8, 20: .9}, 'IoU.a|<b>': {10: .6, 20: .2},
           'Acc.a|<b>': {20: .5}, 'IoU.sky ': {10: .1, 20: .1}, 'IoU.gone': {10: .7},
           'best_mIoU': {20: .4}, 'loss_val': {30: 1.}, '0_IoU.sky ': {20: .9}}
CLASSES = ('sky ', 'a|<b>', 'gone', 'never')


def test_last_and_best_evaluation():
    found = figures_of(log_of(METRICS, CLASSES), 'mIoU', 4)
    assert (found.last, found.best, found.score, found.best_score) == (20, 10, .3, .4)
    assert list(found.metrics) == [('mIoU', .3, .4), ('aAcc', .9, .8)]
    assert [one.name for one in found.seen] == ['sky', 'a|<b>']
    assert found.classes[2].iou is None and found.classes[2].best_iou == .7
    assert dict(found.training) == {
        'Loss': '1.5 (iteration 20)', 'Peak memory of a GPU': '2 GiB',
        'Time of an iteration': '0.375 s, 10.7 images a second'}
    by_class = figures_of(log_of(METRICS, CLASSES), 'IoU.a|<b>')
    assert (by_class.best, by_class.metrics[0]) == (10, ('IoU.a|<b>', .2, .6))


def test_without_evaluations():
    found = figures_of(log_of({'loss_val': {10: 1.}}, CLASSES), 'mIoU')
    assert found.last is found.best is found.score is None
    assert not found.classes and not found.metrics


def test_table_of_classes_and_page(tmp_path):
    found = figures_of(log_of(METRICS, CLASSES), 'mIoU')
    write_classes(str(tmp_path / 'classes.csv'), found.classes)
    assert (tmp_path / 'classes.csv').read_text().splitlines() == [
        'class,IoU,Acc,best_IoU,best_Acc', 'sky,0.1000,,0.1000,', 'a|<b>,0.2000,0.5000,0.6000,',
        'gone,,,0.7000,', 'never,,,,']
    start = Start('now', 'now', 0, 20, 1., 'finished', '', 'python x', 'h', 'card', 1)
    page = render('run.md', name='x', kind='training', figures=found, starts=[start], end=20,
                  seconds=1., curves=True, done=True, enter='cd /', resume='', checkpoint=None,
                  which='', test=[], label=None, export='', sections={}, files=[], absent=2)
    assert '| percent | iteration 20 (last) | iteration 10 (best mIoU) |\n|---|--:|--:|\n' in page
    assert '| mIoU | 30.00 | 40.00 |\n| aAcc | 90.00 | 80.00 |\n\n' in page
    assert '| sky | 10.00 | - |\n' + r'| a\|\<b\> | 20.00 | 50.00 |' in page
    assert '\n2 of 4 classes have no figures' in page
