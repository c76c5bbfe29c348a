"""What trackers get of a training, and what becomes of one that fails."""
import pytest
from helpers.logs import logged
from helpers.tracked import a_runner

from mmseg_custom.engine.tracking.lines import Line, SavedCheckpoint
from mmseg_custom.engine.tracking.record import read_run, write_run
from mmseg_custom.engine.tracking.tracker import Tracker
from mmseg_custom.errors import InputError


class ListTracker(Tracker):
    """Keeps what it gets."""

    title = 'the list'

    def __init__(self, logged=()):
        super().__init__(interval=1, by_epoch=False)
        self.found, self.before, self.is_open = [], dict(logged), False

    def open(self, runner, description):
        self.is_open = True
        return self.before

    def send(self, line):
        if line.values.get('train/loss') == 13:
            raise OSError(28, 'No space left on device')
        self.found.append(line)

    def note(self, checkpoint, step):
        self.found.append((step, checkpoint))

    def close(self, summary):
        self.found.append(summary)


def started(folder, logged=(), **output):
    hook, runner = ListTracker(logged), a_runner(folder, **output)
    hook.before_run(runner)
    return hook, runner


def test_losses_with_throughput_memory_and_the_range_of_rates(tmp_path):
    hook, runner = started(tmp_path, loss=.5)
    runner.current_lr = lambda: [.1 * .9 ** depth for depth in range(50)]
    hook.log(runner)
    line, = hook.found
    assert (line.kind, line.step) == ('train', 4)
    assert line.values.pop('train/memory_MiB') > 0
    assert line.values == {
        'train/loss': .5, 'train/time': .5, 'train/data_time': .1, 'train/images_per_second': 4,
        'learning_rate': .1, 'learning_rate_min': pytest.approx(.1 * .9 ** 49),
        'learning_rate_max': .1, 'momentum': .9}


def test_figures_of_validations_are_of_two_kinds(tmp_path):
    hook, runner = started(tmp_path)
    for output in (dict(mIoU=.5, eval_iter_num=9), dict(loss_val=2.)):
        runner.log_buffer.output = output
        hook.log(runner)
    assert hook.found == [Line('val', 4, {'val/mIoU': .5}), Line('val_loss', 4, {
        'val/loss_val': 2.})]


def test_a_resumed_run_logs_what_the_store_lacks(tmp_path):
    hook, runner = started(tmp_path, logged=dict(train=5, val=3), loss=.5)
    for runner.iter in range(3, 7):
        hook.log(runner)
    runner.log_buffer.output = dict(mIoU=.5)
    for runner.iter in (2, 3):
        hook.log(runner)
    assert [(line.kind, line.step) for line in hook.found] == [
        ('train', 6), ('train', 7), ('val', 4)]


def test_a_tracker_that_fails_is_one_warning(tmp_path):
    hook, runner = started(tmp_path, loss=13)
    with logged() as lines:
        for _ in range(3):
            hook.log(runner)
        hook.after_run(runner)
    assert lines == ['the list: lines are lost from here on (No space left on device); the run '
                     'goes on']
    assert hook.found == []


def test_only_rank_0_tracks(tmp_path):
    hook, runner = ListTracker(), a_runner(tmp_path, loss=.5)
    runner.rank = 1
    hook.before_run(runner)
    hook.before_train_iter(runner)
    hook.after_run(runner)
    assert hook.found == [] and not hook.is_open


def test_checkpoints_are_noted_once_by_their_paths(tmp_path):
    hook, runner = started(tmp_path)
    path = tmp_path / 'iter_2.pth'
    runner.meta = dict(hook_msgs=dict(last_ckpt=str(path), best_score=.5))
    hook.before_train_iter(runner)  # It is not there yet.
    path.write_bytes(b'weights')
    hook.before_train_iter(runner)
    hook.before_train_iter(runner)
    hook.after_run(runner)
    assert hook.found == [(4, SavedCheckpoint('latest', str(path), 2, 7, None)),
                          dict(best_score=.5)]
    assert hook.found[0][1].facts == dict(path=str(path), iteration=2, bytes=7)
    (tmp_path / 'best_mIoU_iter_4.dcp').mkdir()  # of FSDP2
    assert SavedCheckpoint.of('best', str(tmp_path / 'best_mIoU_iter_4.dcp')).facts == dict(
        path=f'{tmp_path}/best_mIoU_iter_4.dcp', iteration=4)


def test_the_record_keeps_the_runs_of_other_trackers(tmp_path):
    assert read_run(str(tmp_path), 'wandb') is None
    write_run(str(tmp_path), 'wandb', 'one')
    write_run(str(tmp_path), 'mlflow', 'two')
    assert [read_run(str(tmp_path), name) for name in ('wandb', 'mlflow')] == ['one', 'two']
    (tmp_path / 'tracking.json').write_text('{"wandb": 1')
    assert read_run(str(tmp_path), 'wandb') is None


def test_errors_at_the_start_end_the_run(tmp_path):
    class Refusing(ListTracker):
        def open(self, runner, description):
            raise InputError('no server')
    with pytest.raises(InputError, match='no server'):
        Refusing().before_run(a_runner(tmp_path))
