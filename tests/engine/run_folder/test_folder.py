"""What a run leaves: pages that say what it was, how it ended, and what to do with it."""
import csv
import json
import re
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.data import SMALL_LINEAR, prepare, write_config
from helpers.logs import logged

from mmseg_custom.engine.run_folder import RunFolder
from mmseg_custom.errors import InputError
from mmseg_custom.evaluation.training_log import read_training_log


def blocks_of(page: str) -> list[list[str]]:
    """Returns the commands of each block of a page, without the one that enters the folder."""
    blocks = [block.splitlines() for block in re.findall(r'```sh\n(.*?)\n```', page, re.DOTALL)]
    assert all(block[0] == f'cd {Path.cwd()}' for block in blocks)
    return [block[1:] for block in blocks]


def curve(log, name: str) -> dict[int, float]:
    return dict(zip(log.metrics[name].iterations.tolist(), log.metrics[name].values.tolist()))


def test_a_run_that_is_killed_and_resumed(zygote, tmp_path, shared_data):
    """Its folder has a name that shells and Markdown would read in another way."""
    config, folder = write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR), (
        tmp_path / 'a run|of `mine`')
    common = [config, '--work-dir', folder, '--cfg-options', 'evaluation.interval=2']
    zygote.train(*common, 'log_config.interval=3', '--seed', '0')
    page, first = (folder / 'README.md').read_text(), read_training_log(str(folder))
    assert '**Finished**' in page and '4 of 4 iterations' in page and '0 to 4' in page
    assert 'Linear probing: the backbone is frozen' in page and 'Seed | 0 |' in page
    assert re.search(r'Trained parameters \| ([\d,]+) of [\d,]+ \(decode_head \1\)', page)
    assert f'6 images of 150 classes in {shared_data}/images/training' in page
    assert r'# config: a run\|of \`mine\`' in page and '| of 150 classes' not in page
    # Evaluations that no line of the training precedes count for their own iterations.
    assert first.iterations.tolist() == [3, 4]
    assert list(first.losses) == ['decode.loss_ce', 'loss']
    assert sorted(curve(first, 'mIoU')) == [2, 4] and f'{100 * curve(first, "mIoU")[4]:.2f}' in page
    listed = re.findall(r'^\| `([^`]+)` \|', page, re.MULTILINE)
    assert {'README.md', 'curves.png', 'classes.csv', 'iter_4.pth', 'latest.pth'} < set(listed)
    assert all((folder / name).exists() for name in listed)
    assert {path.name for path in folder.iterdir()} == set(listed)
    rows = list(csv.DictReader((folder / 'classes.csv').open()))
    assert [row['class'] for row in rows[:2]] == ['wall', 'building'] and len(rows) == 150
    assert float(rows[0]['IoU']) == pytest.approx(curve(first, 'IoU.wall')[4], abs=1e-4)
    (test, report), _, (export,), (start,) = blocks_of(page)
    assert shlex.split(test)[:4] == ['python', 'tools/test.py', f'{folder}/config.py',
                                     str(next(folder.glob('best_*')))]
    assert shlex.split(report)[2] == str(folder) and 'merge_checkpoint' in export
    assert shlex.split(start)[1:] == ['tools/train.py', *map(str, common), 'log_config.interval=3',
                                      '--seed', '0']

    # As if the run had been killed after its first checkpoint, in an earlier second.
    for log in folder.glob('*.log*'):
        log.rename(folder / log.name.replace('20', '19', 1))
    for gone in ('iter_4.pth', 'best.json'):
        (folder / gone).unlink()
    record = json.loads((folder / 'run.json').read_text())
    record['starts'][0].update(state='running', done=3)
    (folder / 'run.json').write_text(json.dumps(record))
    zygote.train(*common, 'log_config.interval=1', '--auto-resume')
    page, log = (folder / 'README.md').read_text(), read_training_log(str(folder))
    assert '| 0 to 3 or more |' in page and '| killed |' in page and '| 2 to 4 |' in page
    assert log.iterations.tolist() == [3, 4] and curve(log, 'mIoU') == curve(first, 'mIoU')


@pytest.mark.parametrize('error, number, said', [
    (SystemExit(75), signal.SIGTERM, r'\*\*Stopped\*\* at .*: by SIGTERM'),
    (SystemExit(75), None, 'by a signal that another process received'),
    (SystemExit(75), signal.SIGINT, 'by Ctrl-C'), (KeyboardInterrupt(), None, 'by Ctrl-C'),
    (InputError('data: <none> | left'), None, r'\*\*Failed\*\* at .*: data: \\<none\\> \\\| left'),
    (RuntimeError('a fault'), None, 'RuntimeError: a fault')])
def test_how_runs_end(small_run, error, number, said):
    with pytest.raises(type(error)), RunFolder(small_run, lambda: number) as folder:
        started = (Path(small_run.work_dir) / 'README.md').read_text()
        folder.done(3)
        raise error
    page = (Path(small_run.work_dir) / 'README.md').read_text()
    assert '**Running** since' in started and 'There is no checkpoint yet' in started
    assert re.search(said, page), page[:600]
    assert 'after 3 of 4 iterations' in page and '--auto-resume' in page


def test_a_command_of_the_page_removes_nothing(small_run, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tools/train.py', 'a.py', '--overwrite', '--seed', '0'])
    with RunFolder(small_run):
        page = (Path(small_run.work_dir) / 'README.md').read_text()
    assert 'train.py a.py --seed 0\n' in page and 'start, but for `--overwrite`, which' in page


def test_a_new_run_in_the_folder_of_another_one(small_run):
    """Shows nothing of that one, whose logs are there until there are new ones."""
    folder = Path(small_run.work_dir)
    for name in ('curves.png', 'classes.csv', 'run.json'):
        (folder / name).write_text('old')
    (folder / '19990101_000000.log.json').write_text(
        '{"mode": "val", "iter": 1, "step": 77, "mIoU": 0.5, "IoU.wall": 0.5}\n')
    with RunFolder(small_run):
        assert 'mIoU' not in (folder / 'README.md').read_text().partition('## What it is')[0]
        assert not (folder / 'curves.png').exists() and not (folder / 'classes.csv').exists()
        with RunFolder(replace(small_run, options=replace(small_run.options, auto_resume=True))):
            assert 'iteration 77' in (folder / 'README.md').read_text()


def test_a_page_of_the_users_is_left_alone(small_run):
    folder = Path(small_run.work_dir)
    (folder / 'README.md').write_text('# My notes\n')
    (folder / 'classes.csv').write_text('mine')
    with logged() as lines, RunFolder(small_run):
        pass
    assert (folder / 'classes.csv').read_text() == 'mine'
    assert (folder / 'README.md').read_text() == '# My notes\n' and (folder / 'run.json').exists()
    assert sum('README.md' in line for line in lines) == 1


def test_what_cannot_be_written_is_one_warning(small_run):
    """A folder in the place of the page, and a work dir that goes away."""
    folder = Path(small_run.work_dir)
    (folder / 'README.md').mkdir()
    with logged() as lines, RunFolder(small_run) as pages:
        pages.refresh()
        (folder / 'README.md').rmdir()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        pages.refresh()
    assert len([line for line in lines if 'the run goes on' in line]) == 1
    assert str(folder / 'README.md') in lines[-1]


def test_pages_take_a_small_part_of_the_time(small_run):
    runner = SimpleNamespace(meta={}, hooks=[], iter=1)
    with RunFolder(small_run) as pages:
        path, written = Path(small_run.work_dir) / 'run.json', []
        for runner.iter in range(10):
            pages.follow([runner])
            written.append(path.stat().st_mtime_ns)
            runner.meta = dict(hook_msgs=dict(last_ckpt=f'iter_{runner.iter}.pth'))
    written.append(path.stat().st_mtime_ns)
    assert written[0] < written[1] == written[-2] < written[-1], 'the first checkpoint, the end'


@pytest.fixture
def small_run(tmp_path, shared_data):
    """A run that is prepared, and not trained."""
    (tmp_path / 'run').mkdir()
    return prepare(write_config(tmp_path / 'config.py', shared_data, extra=SMALL_LINEAR),
                   work_dir=str(tmp_path / 'run'))
