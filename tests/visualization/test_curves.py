"""Curves of a training as a picture: what is drawn, and that odd logs are drawn at all."""
import numpy as np
import pytest
from PIL import Image

from mmseg_custom.evaluation.training_log import Curve, TrainingLog
from mmseg_custom.visualization.curves import draw_curves, smoothed, write_curves

NAN = float('nan')


def log_of(losses: list, metrics: dict | None = None, rates: dict | None = None) -> TrainingLog:
    iterations = np.arange(1, len(losses) + 1)
    return TrainingLog(
        iterations=iterations, losses=dict(loss=np.array(losses, float)) if losses else {},
        learning_rates={name: np.full(len(losses), rate)
                        for name, rate in (rates or ({'lr': 0.1} if losses else {})).items()},
        figures={}, metrics={name: Curve(np.array(list(values), np.int64),
                                         np.array(list(values.values())))
                             for name, values in (metrics or {}).items()})


def test_panels_axes_and_the_best_score():
    falling = [3 * 0.99**i for i in range(500)]
    scores = {'mIoU': {100: 0.3, 300: 0.45, 500: 0.4}, 'IoU.wall': {500: 0.1},
              'loss_val': {250: 1.}}
    loss, rates, score = draw_curves(log_of(falling, scores), 'a $run').axes
    assert [loss.get_ylabel(), rates.get_ylabel(), score.get_ylabel()] == [
        'loss', 'learning rate', 'mIoU in percent']
    assert loss.get_yscale() == 'log' and rates.get_yscale() == 'linear'
    assert [line.get_label() for line in loss.lines] == ['as logged', 'smoothed',
                                                         'validation images']
    assert [text.get_text() for text in score.texts] == ['45.00']
    assert draw_curves(log_of([3, 2, 1])).axes[0].get_yscale() == 'linear'


@pytest.mark.parametrize('log', [
    log_of([2.]), log_of([NAN, NAN]), log_of([3, NAN, float('inf'), 2, 0, -1]),
    log_of([], {'mIoU': {30: 0.2}}), log_of([], {'mIoU': {30: NAN}}),
    log_of([1.] * 100, {'0_mIoU': {5: 0.1}, '1_mIoU': {5: 0.2}}, dict(head=.1, backbone=.2))])
def test_odd_logs(log, tmp_path):
    assert write_curves(str(tmp_path / 'curves.png'), log, '$x_') is True
    with Image.open(tmp_path / 'curves.png') as picture:
        assert picture.width == 1200 and picture.getpixel((2, 2))[:3] == (255, 255, 255)


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert write_curves(str(tmp_path / 'curves.png'), log_of([])) is False
    assert not list(tmp_path.iterdir())


def test_smoothed_values_are_means_without_what_is_not_finite():
    values = np.arange(200.)
    np.testing.assert_allclose(smoothed(values)[10:-10], values[10:-10])
    values[100] = NAN
    found = smoothed(values)
    assert np.isnan(found[100]) and found[99] == np.mean([97, 98, 99, 101])
