"""Command lines: what is wrong is said in a line or two, before anything heavy is imported."""
import argparse
import json
import re
import runpy
import sys
import warnings

import mmseg
import pytest
from helpers.commands import ROOT, run
from helpers.logs import reset_loggers
from helpers.terminal import Terminal
from mmseg.utils import get_root_logger

from benchmarks.cases import start_up

TINY = 'configs/tiny/full_tuning_tiny.py'
# Runs each tool's command line in one process, and says what it ended with and has imported.
SCRIPT = """
import contextlib, io, json, runpy, sys
def end(tool, *words):
    sys.argv, text = [tool, *words], io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            runpy.run_path(tool, run_name='__main__')
        except SystemExit as end:
            code = end.code
    heavy = {'torch', 'numpy', 'mmcv', 'mmseg', 'mmseg_custom', 'matplotlib'} & sys.modules.keys()
    return code, text.getvalue(), sorted(heavy)
sys.path.insert(0, 'tools')
print(json.dumps([end(*words) for words in json.loads(sys.argv[1])]))
"""


@pytest.fixture
def tool(monkeypatch):
    """Loads a tool: name -> its functions."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    return lambda name: runpy.run_path(str(ROOT / 'tools' / name))


@pytest.fixture
def parse(tool, monkeypatch):
    """Parses a command line: (tool, *words) -> namespace."""
    def parse(name, *words):
        monkeypatch.setattr('sys.argv', [name, *map(str, words)])
        return tool(name)['parse_args']()
    return parse


def test_nothing_heavy_is_imported_before_the_command_line_is_right():
    commands = {name: words for name, words in start_up.commands_of(ROOT, []).items()
                if words[0] != '-c'}
    commands |= {f'{name} --help': [name, '--help'] for name in ('./train.py', './test.py')}
    found = json.loads(run('python', '-c', SCRIPT, json.dumps(list(commands.values()))))
    assert len(commands) > 40
    for name, (code, text, heavy) in zip(commands, found):
        assert not heavy, f'{name} imports {heavy}'
        assert code == start_up.code_of(name), f'{name}: {text}'
        if name.endswith('--help'):
            assert 'usage: ' in text, name
        elif name.endswith('a wrong path'):
            assert len(text.splitlines()) == 1, text
            assert f'nowhere does not exist in {ROOT}' in text or 'gradio' in text
        else:
            assert '--debgu is unknown' in text, text


def test_options_that_are_given_twice_add_up(parse):
    args = parse('train.py', TINY, '--cfg-options', 'optimizer.lr=0.1', 'runner.max_iters=3',
                 '--device', 'cpu', '--options', 'runner.max_iters=5')
    assert args.cfg_options == {'optimizer.lr': '0.1', 'runner.max_iters': '5'}
    assert parse('train.py', TINY).cfg_options == {}


def test_the_last_of_the_options_holds(parse):
    """dist_train.sh passes --deterministic, and the user's options after it."""
    assert not parse('train.py', TINY).deterministic
    assert not parse('train.py', TINY, '--deterministic', '--no-deterministic').deterministic


@pytest.mark.parametrize('name, words, message', [
    ('train.py', [TINY, '--auto-resmue'], '--auto-resmue is unknown: did you mean --auto-resume?'),
    ('train.py', ['--workdir=x', TINY], '--workdir is unknown: did you mean --work-dir?'),
    ('train.py', [TINY, '--quite-another', 'x'], '--quite-another is unknown\n'),
    ('train.py', [TINY, 'optimizer.lr=1'], 'did you mean --cfg-options optimizer.lr=1?'),
    ('train.py', [TINY, '8'], '8 is unknown\n'),
    ('train.py', [TINY, '-a\nb'], '-a\\nb is unknown\n'),
    ('train.py', [TINY, '--seed', 'x'], "argument --seed: invalid int value: 'x'"),
    ('train.py', [TINY, '--no', 'x'], 'ambiguous option: --no could match --no-'),
    ('train.py', [], 'the following arguments are required: config'),
    ('cache.py', ['list', 'x', '--deubg'], '--deubg is unknown: did you mean --debug?'),
    ('test.py', [TINY, 'none', '--eval', 'mIou'], 'mIou is unknown: did you mean mIoU?'),
    ('test.py', [TINY, 'none', '--eval', 'mIoU', 'mDise'], 'did you mean mDice?'),
    ('test.py', [TINY, 'none', '--eval', 'mFscores'], 'did you mean mFscore?'),
    ('test.py', [TINY, 'none', '--eval', 'cityscape'], 'did you mean cityscapes?'),
    ('test.py', [TINY, 'none', '--eval-options', 'a', '='], 'what holds spaces is quoted'),
])
def test_a_mistake_is_said_in_two_lines(parse, capsys, name, words, message):
    with pytest.raises(SystemExit) as end:
        parse(name, *words)
    text = capsys.readouterr().err
    assert end.value.code == 2 and message in text and len(text.splitlines()) == 2
    assert text.startswith('error: ') and f'({name} ' in text and '--help lists' in text


def test_what_could_be_right_is_accepted(parse):
    """Abbreviations, old spellings, and metrics that a plugin's data set may have."""
    args = parse('train.py', TINY, '--auto', '--local-rank', '3', '--diff-seed',
                 '--options', 'a=b=c')
    assert args.auto_resume and args.local_rank == 3 and args.diff_seed
    assert args.cfg_options == {'a': 'b=c'} and args.wait_for_disk == 120
    metrics = ['mIoU', 'mBIoU', 'cityscapes', 'PQ', 'mean', 'instances']
    assert parse('test.py', TINY, 'none', '--eval', *metrics).eval == metrics
    assert parse('train.py', TINY, '--auto-resume', '--load-from', 'gone.pth').load_from
    assert parse('train.py', TINY, '--load-from', 'https://host/x.pth').load_from


def test_a_folder_is_no_config(parse, capsys):
    with pytest.raises(SystemExit, match='1'):
        parse('train.py', 'configs/tiny')
    assert capsys.readouterr().err == (
        'error: config configs/tiny is a folder: expected a file in it\n')


def test_a_command_from_another_folder_says_where_it_works(parse, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='1'):
        parse('train.py', TINY)
    assert capsys.readouterr().err == (
        f'error: config {TINY} does not exist in {tmp_path}; it is in {ROOT}: run the command '
        f'there, or give {ROOT}/{TINY}\n')


def test_every_tool_prints_as_a_run_does(tool, monkeypatch):
    reset_loggers(monkeypatch)
    monkeypatch.setattr(sys, 'stderr', Terminal())
    monkeypatch.setenv('TERM', 'xterm')
    with warnings.catch_warnings():
        tool('_command_line.py')['start'](argparse.Namespace, lambda _: (
            get_root_logger().info('a line'),
            warnings.warn_explicit('avg_non_ignore', UserWarning, mmseg.__file__, 1)))
    assert re.fullmatch(r'\d\d:\d\d:\d\d a line', sys.stderr.text.strip())
