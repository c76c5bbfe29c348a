"""Events of TensorBoard: of interrupted runs, and on a full disk."""
import pytest
from helpers.logs import logged
from helpers.tracked import a_runner, events_of, files_of_at_most

from mmseg_custom.engine.evaluation_hook import SegEvalHook
from mmseg_custom.engine.tracking.description import Description
from mmseg_custom.engine.tracking.tensorboard import TensorboardTracker


def started(folder, iteration):
    hook, runner = TensorboardTracker(by_epoch=False), a_runner(folder, iteration, loss=0.)
    hook.before_run(runner)
    return hook, runner


def test_each_iteration_is_shown_once(tmp_path):
    for first, last in ((0, 7), (4, 6), (4, 8)):  # killed after 7 and 6 iterations
        hook, runner = started(tmp_path, first)
        for runner.iter in range(first, last):
            runner.log_buffer.output['loss'] = runner.iter + first / 10
            hook.log(runner)
    found, _ = events_of(tmp_path)
    assert found['train/loss'] == [(i + 1, pytest.approx(i + (i > 3) * .4)) for i in range(8)]


@pytest.mark.parametrize('logged', [True, False])
def test_an_evaluation_that_is_repeated_is_shown_once(tmp_path, logged):
    due = SegEvalHook.__new__(SegEvalHook)
    due.is_due = lambda runner: True
    for first in (0, 4):
        hook, runner = TensorboardTracker(by_epoch=False), a_runner(tmp_path, first, loss=0.)
        runner.hooks = [due]
        due.pictures = []
        hook.before_run(runner)
        runner.iter = 3
        if not first:
            hook.log(runner)
        runner.log_buffer.output = dict(mIoU=.5)
        if first or logged:
            hook.log(runner)
    found, _ = events_of(tmp_path)
    assert found['train/loss'] == [(4, 0)] and found['val/mIoU'] == [(4, .5)]


def test_a_new_run_in_the_folder_hides_the_one_before(tmp_path):
    for last in (6, 2):
        hook, runner = started(tmp_path, 0)
        for runner.iter in range(last):
            hook.log(runner)
    found, _ = events_of(tmp_path)
    assert [step for step, _ in found['train/loss']] == [1, 2]


def test_events_end_with_one_warning(tmp_path, capfd):
    hook, runner = TensorboardTracker(by_epoch=False), a_runner(tmp_path, loss=.5)
    with logged() as lines, files_of_at_most(10):
        hook.before_run(runner)
        for _ in range(30):
            hook.log(runner)
        hook.after_run(runner)
    assert [line for line in lines if 'lines are lost' in line] == [
        f'{tmp_path}/tf_logs: lines are lost from here on (File too large); the run goes on']
    assert 'Traceback' not in capfd.readouterr().err


def test_runs_of_a_sweep_have_folders_of_their_own(tmp_path):
    hook = TensorboardTracker(log_dir=str(tmp_path / 'all'))
    runner = a_runner(tmp_path / 'sweep/lr0.01')
    hook.open(runner, Description('lr0.01', sweep='sweep'))
    assert hook.log_dir == str(tmp_path / 'all/lr0.01')
    hook.close({})
