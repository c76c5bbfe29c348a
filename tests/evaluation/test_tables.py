"""The few lines about an evaluation."""
import numpy as np

from mmseg_custom.evaluation.metrics import as_floats
from mmseg_custom.evaluation.tables import summarize

NAN = float('nan')


def metrics(scores: dict[str, float]) -> dict[str, float]:
    return {'aAcc': .8, 'mIoU': .4061, 'mAcc': .5,
            **{f'IoU.{name}': value for name, value in scores.items()},
            **{f'Acc.{name}': value / 2 for name, value in scores.items()}}


def test_a_few_classes_are_all_shown_and_absent_ones_counted():
    scores = {'wall': .5, 'traffic light': 0., 'sky': .25, 'boat': NAN, 'ship': NAN}
    interval = dict(low=.3, high=.45, level=.95)
    assert summarize(metrics(scores), list(scores), interval) == '\n'.join((
        'mIoU 40.61 (95% interval 30.00 to 45.00), aAcc 80.00, mAcc 50.00',
        '  class            IoU    Acc',
        '  wall           50.00  25.00',
        '  traffic light   0.00   0.00',
        '  sky            25.00  12.50',
        '  2 of 5 classes are neither in the ground truth nor predicted'))


def test_of_many_classes_the_best_and_the_worst_are_shown():
    scores = {f'c{i}': (i * 7 % 20) / 20 for i in range(20)}
    lines = summarize(metrics(scores), list(scores)).splitlines()
    assert [line.split()[1] for line in lines[2:6]] == ['95.00', '90.00', '85.00', '80.00']
    assert lines[6] == '  ... 12 more' and len(lines) == 11
    assert [line.split()[1] for line in lines[7:]] == ['15.00', '10.00', '5.00', '0.00']


def test_each_of_several_data_sets_has_a_line():
    both = {**metrics({'wall': .5}), '0_mIoU': .3, '1_mIoU': .6, '1_IoU.wall': .7}
    lines = summarize(both, ['wall'], folders=['a/images', 'b/images']).splitlines()
    assert lines[1:3] == ['a/images: mIoU 30.00', 'b/images: mIoU 60.00']


def test_figures_of_other_scales_and_of_no_classes():
    assert summarize({'distance': 12.345678, 'mIoU': NAN}, ['wall']) == 'mIoU -, distance 12.346'


def test_numbers_of_32_bits_are_written_in_short():
    found = as_floats({'mIoU': np.float32(.4061), 'IoU.wall': np.float32('nan'), 'x': .1 + .2})
    assert repr(found['mIoU']) == '0.4061' and found['x'] == .1 + .2
    assert repr(found['IoU.wall']) == 'nan'
