"""The last checkpoint of a run on a full disk."""
import logging
from types import SimpleNamespace

import pytest
from helpers.runs import spread, write_small_config

from mmseg_custom.engine import hooks, last_save
from mmseg_custom.engine.last_save import LastSave, check_spare_folder
from mmseg_custom.errors import InputError
from mmseg_custom.files import SaveError

LOGGER = logging.getLogger('test_last_save')


class Disk:
    """Takes files in the folders named, from a number of tries on."""

    def __init__(self, *takes, after: int = 0):
        self.takes, self.after, self.tried = takes, after, []

    def save(self, folder):
        self.tried.append(folder)
        if folder in self.takes and len(self.tried) > self.after:
            return None
        return SaveError(28, 'was not written (No space left on device)', f'{folder}/iter_8.pth')


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    slept = []
    monkeypatch.setattr(last_save.time, 'sleep', slept.append)
    return slept


def test_a_disk_with_room_takes_one_try(no_pauses):
    disk = Disk('/disk')
    assert LastSave('/spare').insist(disk.save, '/disk', '/disk', 8, LOGGER) is None
    assert disk.tried == ['/disk'] and no_pauses == []


def test_waits_until_there_is_room(no_pauses, caplog):
    disk = Disk('/disk', after=2)
    assert LastSave().insist(disk.save, '/disk', '/disk', 8, LOGGER) is None
    assert len(disk.tried) == 3 and no_pauses == [2, 4]
    assert 'make room in /disk' in caplog.text and 'No space left' in caplog.text


def test_the_wait_is_bounded_over_all_heads(no_pauses):
    shared = LastSave(patience=20)
    for _ in range(3):
        error = shared.insist(Disk().save, '/disk', '/disk', 8, LOGGER)
        assert 'the weights of iteration 8 are lost' in str(error)
    assert sum(no_pauses) == 20


def test_then_the_spare_folder(no_pauses, caplog):
    shared = LastSave('/spare')
    folder = shared.spare_folder('/disk/run')
    disk = Disk(folder)
    assert shared.insist(disk.save, '/disk/run', '/disk/run', 8, LOGGER) is None
    assert disk.tried[-1] == folder and sum(no_pauses) == 10
    assert folder.startswith('/spare/run-') and f'is in {folder} instead' in caplog.text


def test_runs_share_a_spare_folder():
    names = {LastSave('/spare').spare_folder(name) for name in ('/a/run', '/b/run', '/b/run/')}
    assert len(names) == 2


def test_says_what_is_where(tmp_path):
    (tmp_path / 'iter_6.pth').touch()
    error = LastSave('/spare', 0).insist(Disk().save, str(tmp_path), str(tmp_path), 8, LOGGER)
    for words in ('iter_8.pth was not written', '/spare/', 'weights of iteration 8 are lost',
                  f'those of iteration 6 are in {tmp_path}/iter_6.pth'):
        assert words in str(error)


def test_a_run_that_is_stopped_does_not_wait(no_pauses):
    spare = LastSave('/spare')
    spare.save_now(Disk(spare.spare_folder('/disk/run')).save, '/disk/run', '/disk/run', LOGGER)
    with pytest.raises(SaveError, match='No space left'):
        LastSave().save_now(Disk().save, '/disk/run', '/disk/run', LOGGER)
    assert no_pauses == []


def test_a_spare_folder_that_takes_nothing_is_known_at_once(tmp_path):
    check_spare_folder(str(tmp_path / 'new' / 'folder'))
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='--spare-dir .* takes no files'):
        check_spare_folder(str(tmp_path / 'file' / 'folder'))


@pytest.mark.parametrize('ranks, engine', [
    (1, 'single'), pytest.param(2, 'fsdp2', marks=pytest.mark.slow)])
def test_a_run_without_its_last_checkpoint_has_failed(zygote, tmp_path, ranks, engine):
    """It can write files of 100 kB at most: logs, but no checkpoint."""
    config, run = write_small_config(tmp_path), tmp_path / 'run'
    log = tmp_path / 'log.txt'
    processes = zygote.start_training(
        log, config, '--work-dir', run, '--wait-for-disk', 0, *spread(ranks, engine), ranks=ranks,
        file_size=100_000)
    assert [zygote.wait(process) for process in processes] == [1] * ranks
    text = log.read_text()
    assert 'Iter [8/8]' in text and 'training continues without this checkpoint' in text
    assert text.count('aAcc') >= 2  # the last evaluation is made all the same
    assert 'Traceback' not in text and not list(run.glob('iter_*'))
    last = text.strip().splitlines()[-1]
    assert last.startswith('error') and 'weights of iteration 8 are lost' in last
    assert '--spare-dir' in last and 'there is no checkpoint in' in last


@pytest.mark.parametrize('sharded', [False, True])
def test_the_folder_is_made_anew(tmp_path, monkeypatch, sharded):
    """A work dir that was removed meanwhile; sharded checkpoints make theirs themselves."""
    runner = SimpleNamespace(rank=0, model=None, work_dir=str(tmp_path / 'run'), meta={},
                             logger=logging.getLogger('mmseg'),
                             save_checkpoint=lambda folder, **_: f'{folder}/iter_8.pth')
    monkeypatch.setattr(hooks, 'is_sharded', lambda model: sharded)
    hook = hooks.SegCheckpointHook(by_epoch=False)
    hook.out_dir, hook.args = str(tmp_path / 'other'), {}
    assert hook._save_in(runner, runner.work_dir) is None
    assert (tmp_path / 'run').exists() == (not sharded)
