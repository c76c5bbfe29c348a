"""What is shown on the screen, and what is in the log file alone."""
import logging
import multiprocessing
import sys
import time
import warnings

import pytest
from helpers.logs import reset_loggers
from helpers.terminal import Terminal
from mmcv.utils import print_log

from mmseg_custom.engine.screen import kept_in, show_and_keep
from mmseg_custom.logs import log_details, saying
from mmseg_custom.progress import progress_bar


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter('always')
        reset_loggers(monkeypatch)
        yield


def talk() -> None:
    """Logs as this package, mmcv and mmseg do."""
    logger = logging.getLogger('mmseg')
    logger.info('network: a')
    log_details('environment\nGCC: 12')
    print_log('per class results', logger)  # mmcv's function
    logging.getLogger('mmcv').info('initialize a head')
    logger.warning('a doubt')
    warnings.warn_explicit('of a library', UserWarning, sys.modules['mmseg'].__file__, 5)
    for _ in range(3):
        warnings.warn_explicit('of a plugin', UserWarning, '/home/plugin.py', 7)


FILE_ALONE = ('environment\nGCC: 12', 'per class results', 'initialize a head', 'of a library')


def test_the_screen_has_what_a_person_reads_and_the_file_everything(tmp_path, capsys):
    path = tmp_path / 'run.log'
    assert show_and_keep('INFO', str(path)) == str(path)
    talk()
    screen, file = capsys.readouterr().err, path.read_text()
    assert [line.split(' - ', 1)[1] for line in screen.splitlines()] == [
        'mmseg - INFO - network: a', 'mmseg - WARNING - a doubt',
        'py.warnings - WARNING - of a plugin (UserWarning, plugin.py:7)']
    for text in ('network: a', 'a doubt', *FILE_ALONE):
        assert file.count(text) == 1 and (text in screen) == (text not in FILE_ALONE)
    assert file.count('of a plugin') == 1


def test_a_run_among_several_has_a_log_file_of_its_own(tmp_path, capsys):
    paths = [tmp_path / name for name in ('sweep.log', 'run.log')]
    show_and_keep('INFO', str(paths[0]))
    logging.getLogger('mmseg').info('before')
    with pytest.raises(ValueError), kept_in(str(paths[1])):
        logging.getLogger('mmcv').info('within')
        raise ValueError
    logging.getLogger('mmseg').info('after')
    sweep, run = ([line.split(' - ')[-1] for line in path.read_text().splitlines()]
                  for path in paths)
    assert (sweep, run) == (['before', 'after'], ['within'])


def test_at_log_level_debug_the_screen_has_everything(capsys):
    show_and_keep('DEBUG', None)
    talk()
    screen = capsys.readouterr().err
    assert all(text in screen for text in FILE_ALONE)


def test_a_warning_of_several_workers_is_shown_once(capfd):
    show_and_keep('INFO', None)

    def warn() -> None:
        warnings.warn_explicit('of a plugin', UserWarning, '/home/plugin.py', 7)

    for _ in range(2):
        worker = multiprocessing.get_context('fork').Process(target=warn)
        worker.start()
        worker.join()
    warn()
    assert capfd.readouterr().err.count('of a plugin') == 1


def test_a_terminal_has_short_lines_above_the_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    monkeypatch.setenv('TERM', 'xterm')
    show_and_keep('INFO', None)
    with progress_bar(3, 'image') as bar:
        bar.update()
        logging.getLogger('mmseg').warning('a doubt')
    line = next(line for line in terminal.text.replace('\r', '\n').splitlines() if 'doubt' in line)
    assert line[2] == line[5] == ':' and line[8:] == ' warning: a doubt'
    assert terminal.text.rindex('image') > terminal.text.index('doubt')


def test_a_test_runs_without_a_log_that_cannot_be_written(tmp_path):
    assert show_and_keep('INFO', str(tmp_path / 'none' / 'run.log'), needed=False) is None
    with pytest.raises(FileNotFoundError):
        show_and_keep('INFO', str(tmp_path / 'none' / 'run.log'))


def test_what_takes_long_says_what_it_is(capsys):
    show_and_keep('INFO', None)
    with saying('reading', after=60):
        pass
    assert not capsys.readouterr().err
    with saying('loading', after=.01, every=60):
        text, end = '', time.monotonic() + 60
        while 'loading: ' not in text:
            assert time.monotonic() < end
            time.sleep(.01)
            text += capsys.readouterr().err
