"""Logs on a full disk, which /dev/full stands for."""
import json
import logging

import pytest
from helpers.logs import logged
from helpers.tracked import a_runner, files_of_at_most

from mmseg_custom.engine.log_files import LogFile
from mmseg_custom.engine.text_log import SegTextLoggerHook
from mmseg_custom.files import SaveError, append_line


def test_a_log_file_warns_once(capsys):
    logger = logging.getLogger('test_log_files')
    handler = LogFile('/dev/full')
    logger.addHandler(handler)
    try:
        with logged(logger.name) as lines:
            for i in range(3):
                logger.info('line %d', i)
    finally:
        logger.removeHandler(handler)
    assert [line for line in lines if 'line ' not in line] == [
        '/dev/full: lines are lost from here on (No space left on device); the run goes on']
    assert 'Traceback' not in capsys.readouterr().err


def test_a_bug_in_a_message_still_shows_as_one(tmp_path, capsys):
    handler = LogFile(str(tmp_path / 'log'))
    handler.handle(logging.LogRecord('x', logging.INFO, 'f', 1, '%d', ('a',), None))
    handler.close()
    assert 'TypeError' in capsys.readouterr().err


def test_the_json_log_loses_whole_lines(tmp_path):
    hook, runner = SegTextLoggerHook(by_epoch=False), a_runner(tmp_path, loss=.5)
    hook.before_run(runner)
    hook.log(runner)
    path = tmp_path / 'now.log.json'
    size = path.stat().st_size
    with logged() as lines, files_of_at_most(size + 10):
        hook.log(runner)
        hook.log(runner)
    hook.log(runner)  # there is room again
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line['loss'] for line in found] == [.5, .5]
    assert sum('lines are lost from here on' in line for line in lines) == 1


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / 'log')
    append_line(path, 'a')
    with files_of_at_most(5), pytest.raises(SaveError, match='earlier files are unchanged'):
        append_line(path, 'b' * 10)
    append_line(path, 'c')
    assert (tmp_path / 'log').read_text() == 'a\nc\n'
