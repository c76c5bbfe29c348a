"""Work dirs with checkpoints: what is refused, and what --overwrite removes, and when."""
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.data import SMALL_LINEAR, write_config
from mmcv import Config

from mmseg_custom.engine.last_save import spare_name
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.used_folder import EarlierRun, check_work_dir, finished
from mmseg_custom.errors import InputError


@pytest.fixture
def used(tmp_path) -> Path:
    """A work dir with two checkpoints, the best one, a link, and what a run writes besides."""
    folder = tmp_path / 'run'
    folder.mkdir()
    for name in ('iter_9.pth', 'best_mIoU_iter_9.pth', 'best.json', '20260101_000000.log'):
        (folder / name).touch()
    (folder / 'iter_77.dcp').mkdir()
    (folder / 'latest.pth').symlink_to('iter_77.dcp')
    return folder


def check(work_dir: Path, config: dict | None = None, **options: object) -> None:
    check_work_dir(Config(dict(work_dir=str(work_dir), model={}, **(config or {}))),
                   RunOptions(**options))


def test_a_used_folder_is_refused(used):
    before = sorted(used.iterdir())
    with pytest.raises(InputError) as raised:
        check(used)
    assert str(raised.value).startswith(
        f'work dir {used} holds 3 checkpoint(s) of an earlier run (newest: iter_77.dcp): '
        '--auto-resume goes on with it')
    assert '--overwrite' in str(raised.value) and '--work-dir' in str(raised.value)
    with pytest.raises(InputError, match='holds 3'):
        check(used, dict(resume_from=str(used.parent / 'other' / 'iter_9.pth')))
    assert sorted(used.iterdir()) == before


@pytest.mark.parametrize('leftover', ['', '20260101_000000.log', 'eval_single_scale_1.json',
                                      'best.json', 'iter_2.pth.part', 'config.py', 'mine.pth'])
def test_a_folder_without_checkpoints_is_taken(tmp_path, leftover):
    if leftover:
        (tmp_path / leftover).touch()
    check(tmp_path)
    check(tmp_path / 'is not there')


def test_what_says_how_to_go_on_is_taken(used):
    check(used, auto_resume=True)
    check(used, overwrite=True)
    check(used, dict(resume_from=os.path.relpath(used / 'iter_9.pth')))
    check(used, dict(resume_from=f'/spare/{spare_name(str(used))}/iter_80.pth'))
    (used.parent / 'link').symlink_to(used)
    check(used, dict(resume_from=str(used.parent / 'link' / 'iter_9.pth')))


def test_heads_of_a_sweep_count_for_a_sweep(used):
    (used / 'config.py').touch()
    with pytest.raises(InputError, match='newest: run/iter_77.dcp'):
        check(used.parent, dict(sweep=dict(lr=[1])))
    check(used.parent)  # a run beside the folders of other runs


@pytest.mark.parametrize('key', ['load_from', 'resume_from'])
def test_what_the_run_reads_is_not_removed(used, key):
    with pytest.raises(InputError, match=f'would remove .*latest.pth, which {key} names'):
        check(used, {key: str(used / 'latest.pth')}, overwrite=True)
    check(used, {key: str(used.parent / 'other.pth')}, overwrite=True)


def test_overwriting_removes_the_earlier_run_alone(used):
    """Only what was there before, once."""
    earlier = EarlierRun([str(used)])
    (used / 'iter_3.pth').touch()
    earlier.remove()
    assert {path.name for path in used.iterdir()} == {'iter_3.pth', '20260101_000000.log'}
    (used / 'latest.pth').symlink_to('iter_3.pth')
    earlier.remove()
    assert (used / 'latest.pth').exists()


def test_a_run_from_the_start_to_its_finish(zygote, shared_data, tmp_path):
    """Refused, overwritten, resumed: by the commands, in one folder."""
    config = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR + """
runner = dict(max_iters=2)
evaluation = dict(interval=2)
checkpoint_config = dict(interval=1)
""")
    words = [config, '--work-dir', tmp_path / 'run']

    def files() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in (tmp_path / 'run').iterdir()
                if path.suffix in ('.pth', '.py')}

    zygote.train(*words)
    before = files()
    assert 'holds 3 checkpoint(s)' in zygote.train(*words, code=1).splitlines()[-1]
    assert files() == before
    text = zygote.train(*words, '--auto-resume')
    assert 'is finished: iteration 2 was saved on' in text and 'training on' not in text
    zygote.train(*words, '--overwrite', '--load-from', tmp_path / 'none.pth', code=1)
    assert files()['iter_2.pth'] == before['iter_2.pth']  # nothing is lost
    text = zygote.train(*words, '--overwrite', '--cfg-options', 'runner.max_iters=1')
    assert 'removed 3 checkpoint(s)' in text
    assert {name for name in files() if name.endswith('.pth')} == {'iter_1.pth', 'latest.pth'}


@pytest.mark.parametrize('counted, said', [
    ({}, 'runner.max_iters=N trains on'),
    ({'epoch_length': 3}, r'max_iters=N \(or max_epochs=N, where the config has it\) trains')])
def test_how_a_finished_run_is_trained_on(tmp_path, counted, said):
    (tmp_path / 'iter_6.pth').touch()
    run = SimpleNamespace(
        cfg=Config(dict(runner=dict(max_iters=6, **counted))), resumed=True, data={},
        work_dir=str(tmp_path),
        checkpoint=SimpleNamespace(meta=dict(iter=6), path=str(tmp_path / 'iter_6.pth')))
    assert re.search(said, finished(run))
