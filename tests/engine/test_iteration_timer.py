"""Times of iterations and evaluations, by a clock of the test."""
import logging
from types import SimpleNamespace

import pytest

from mmseg_custom.engine.iteration_timer import (
    SegIterTimerHook,
    TimedEvaluation,
    estimate,
    evaluating,
)
from mmseg_custom.engine.log_buffer import DeferredLogBuffer
from mmseg_custom.engine.text_log import losses_line


class Evaluation(TimedEvaluation):
    def __init__(self, interval, start=None):
        self.by_epoch, self.interval, self.start = False, interval, start


def a_run(resumed: int, until: int, end: int, evaluations: Evaluation | None = None):
    """Runs iterations of 2 s, 60 s for the first, and evaluations of 30 s; returns the runner."""
    now = [1000.]
    timer = SegIterTimerHook(lambda: now[0])
    runner = SimpleNamespace(
        hooks=[timer, *([evaluations] if evaluations else [])], log_buffer=DeferredLogBuffer(),
        max_iters=end, iter=resumed, logger=logging.getLogger('mmseg'))
    timer.before_epoch(runner)
    while runner.iter < until:
        timer.before_iter(runner)
        now[0] += 60 if runner.iter == resumed else 2
        timer.after_iter(runner)
        if evaluations and evaluations._should_evaluate(runner):
            with evaluating(runner):
                now[0] += 30
        runner.iter += 1
    return runner


@pytest.mark.parametrize('resumed', [0, 80, 97])
def test_after_a_resume_the_estimate_is_that_of_the_iterations_done(resumed):
    runner = a_run(resumed, 100, 200)
    assert estimate(runner, 100) == '0:03:20'  # 100 iterations of 2 s


def test_evaluations_are_estimated_and_no_part_of_iterations():
    runner = a_run(0, 100, 200, Evaluation(40))
    # 100 iterations and those evaluations of 120, 160 and 200
    assert estimate(runner, 100) == '0:04:50'
    assert set(runner.log_buffer.val_history['time'][1:]) == {2.}
    assert set(runner.log_buffer.val_history['data_time']) == {0.}


def test_before_the_first_evaluation_it_says_how_many_are_not_included():
    assert estimate(a_run(0, 10, 20, Evaluation(15)), 10) == '0:00:20 and 1 evaluation'
    assert estimate(a_run(0, 10, 45, Evaluation(15)), 10) == '0:01:10 and 3 evaluations'
    assert estimate(a_run(0, 1, 20), 1) is None  # the first iteration says nothing


@pytest.mark.parametrize('interval, start', [(3, None), (3, 0), (3, 1), (2, 5), (7, 30)])
def test_evaluations_that_are_left_are_those_that_mmcv_makes(interval, start):
    hook = Evaluation(interval, start)
    for done in range(20):
        due = [i for i in range(done, 20) if hook._should_evaluate(SimpleNamespace(iter=i))]
        assert hook.evaluations_left(done, 20) == len(due), done


def test_a_line_has_the_form_of_mmcv():
    values = dict(mode='train', epoch=1, iter=50, lr=1e-3, memory=7, data_time=.01, time=.5,
                  loss=2.5)
    assert losses_line(values, 100, '0:00:25') == (
        'Iter [50/100]\tlr: 1.000e-03, eta: 0:00:25, time: 0.500, data_time: 0.010, memory: 7, '
        'loss: 2.5000')
    assert losses_line(dict(values, lr=dict(a=.1, b=.2)), 100, None).startswith(
        'Iter [50/100]\tlr_a: 1.000e-01 lr_b: 2.000e-01, time: ')
