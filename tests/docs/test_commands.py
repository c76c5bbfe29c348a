"""Every command of README and docs: known to its tool, and marked with what it needs or run.

A block of commands stands under a mark, `<!-- needs: data, GPU -->` (scripts/docs/needs.py), or is
run: by the test of its page, or else by the slow test below.
"""
import argparse
import contextlib
import io
import re
import runpy
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest
from helpers.checkout import make_checkout, run_command
from helpers.commands import ROOT
from helpers.data import SMALL_LINEAR, draw_data, write_config
from helpers.docs import PAGES, Command, commands_in, commands_of

from benchmarks.__main__ import parser_of_runs
from benchmarks.registry import find_benchmarks

# Pages whose unmarked blocks have a test of their own.
RUN_BY = {
    'docs/adding_backbones.md': 'test_extending.py',
    'docs/adding_data_sets.md': 'test_extending.py',
    'docs/adding_heads.md': 'test_extending.py',
    'docs/custom_dataset.md': 'test_custom_dataset.py',
    'docs/first_hour.md': 'test_first_hour.py',
}
# What commands may call beside this project's files.
PROGRAMS = {'apptainer', 'cat', 'cd', 'cp', 'docker', 'export', 'git', 'head', 'hf', 'mkdir', 'pip',
            'pre-commit', 'sha256sum', 'source', 'trtexec', 'wget'}
LAUNCHERS = {'dist_train.sh': ('tools/train.py', 'CONFIG N'),
             'dist_test.sh': ('tools/test.py', 'CONFIG CHECKPOINT N'),
             'slurm_train.sh': ('tools/train.py', 'PARTITION NAME CONFIG'),
             'slurm_test.sh': ('tools/test.py', 'PARTITION NAME CONFIG CHECKPOINT')}
HEREDOC = re.compile(r"<<'?(\w+)'?(.*)\n(?:.*\n)*?\1$", re.MULTILINE)
OURS = re.compile(r'(configs|tools|tests|docs|benchmarks|requirements|scripts|examples)/[\w./-]+')


@cache
def parser_of(path: str) -> argparse.ArgumentParser | None:
    """Runs a script up to where it reads its options; None if it reads none."""
    found = []

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        found.append(parser)
        sys.exit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_known_args', stop)
        patch.setattr(sys, 'argv', [path])
        patch.syspath_prepend(str((ROOT / path).parent))
        if 'argparse' in (ROOT / path).read_text() or path.startswith('tools/'):
            with contextlib.suppress(SystemExit):
                runpy.run_path(str(ROOT / path), run_name='__main__')
    return found[0] if found else None


def fault_of_options(path: str, words: list[str]) -> str | None:
    """Returns what the parser of a script says against options, or None."""
    parser = parser_of(path)
    if parser is None:
        return f'{path} takes no options' if words else None
    said = io.StringIO()
    parser.allow_abbrev = False
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(['1' if word == 'N' else word for word in words])
    except SystemExit as end:
        return said.getvalue() if end.code else None
    return None


def fault_of_script(path: str, words: list[str]) -> str | None:
    """Returns what is wrong with a call of a Python script."""
    if path in ('train.py', 'test.py'):
        path = f'tools/{path}'
    if not (ROOT / path).is_file():
        return f'there is no {path}'
    return fault_of_options(path, words)


def fault_of_benchmarks(words: list[str]) -> str | None:
    """Returns what is wrong with `python -m benchmarks` and these words."""
    if words[:1] in (['compare'], ['page']):
        return None
    parser, said = parser_of_runs(), io.StringIO()
    parser.allow_abbrev = False
    try:
        with contextlib.redirect_stderr(said):
            names = parser.parse_args(['1' if word == 'N' else word for word in words]).names
    except SystemExit:
        return said.getvalue()
    unknown = set(names) - {'NAME', *find_benchmarks()}
    return f'there is no benchmark {", ".join(unknown)}' if unknown else None


def fault_of_launch(words: list[str]) -> str | None:
    """Returns what is wrong with a call of a launch script."""
    name, *rest = words
    if name.startswith('scripts/') or name.startswith('tests/'):
        return None if (ROOT / name).is_file() else f'there is no {name}'
    if name not in LAUNCHERS:
        return f'there is no {name}'
    tool, usage = LAUNCHERS[name]
    given = dict(zip(usage.split(), rest))
    own = [given.get(key) for key in ('CONFIG', 'CHECKPOINT') if key in usage.split()]
    if len(given) < len(usage.split()):
        return f'the following arguments are required: sh {name} {usage}'
    if 'N' in given and not re.fullmatch(r'\d+|N', given['N']):
        return f'{given["N"]} is no number of processes'
    return fault_of_options(tool, own + rest[len(usage.split()):])


def fault_of_make(words: list[str]) -> str | None:
    """Returns what is wrong with a call of make."""
    targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    for word in words:
        name, is_variable, value = word.partition('=')
        if name == 'OPTIONS' and {'bench', 'gpu-check'} & set(words):
            if fault := fault_of_benchmarks(shlex.split(value)):
                return fault
        elif not is_variable and name not in targets:
            return f'there is no `make {name}`'
    return None


def fault_of(command: str) -> str | None:
    """Returns what is wrong with one simple command, or None."""
    words = [word for word in shlex.split(command) if word != '...']
    while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
        words.pop(0)
    if not words:
        return None
    program, *rest = words
    if program == 'python' and rest[0] == '-m':
        program, *rest = rest[1:]
    if program == 'benchmarks':
        return fault_of_benchmarks(rest)
    if program == 'python':
        return None if rest[0] == '-' else fault_of_script(rest[0], rest[1:])
    if program == 'sh':
        return fault_of_launch(rest)
    if program == 'make':
        return fault_of_make(rest)
    if program in ('pytest', 'mkdocs', *PROGRAMS):
        return None
    return f'{program} is no program that pages call'


def faults_of(command: Command, page: str) -> list[str]:
    """Returns what is wrong with a command; what it pipes into another one is looked at, too."""
    lines = re.sub(r' >\s*\S+', '', HEREDOC.sub(r'\2', command.text)).splitlines()
    faults = [fault for line in lines for part in re.split(r' (?:\||&&) ', line)
              if (fault := fault_of(part))]
    if not command.in_block:  # a mention need not be complete
        faults = [fault for fault in faults if 'arguments are required' not in fault]
    for path in OURS.finditer(command.text):
        before = command.text[path.start() - 1:path.start()]
        if before in ('', ' ') and not (ROOT / path[0]).exists() and f'> {path[0]}' not in page:
            faults.append(f'there is no {path[0]}')
    return faults


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_is_known_to_its_tool(page):
    text = page.read_text('utf-8')
    wrong = {command.text: faults for command in commands_of(page)
             if (faults := faults_of(command, text))}
    assert not wrong


@pytest.mark.parametrize('command', [
    'python tools/no_such_tool.py', 'python tools/train.py CONFIG --no-such-option',
    'python train.py CONFIG --auto-resum', 'python tools/train.py configs/no_such_config.py',
    'python tools/test.py CONFIG', 'sh dist_train.sh CONFIG eight', 'sh dist_test.sh CONFIG 8',
    'GPUS=8 sh slurm_train.sh PARTITION NAME CONFIG --no-such-option', 'make no-such-target',
    'make gpu-check OPTIONS="--no-such-option"', 'make bench OPTIONS="no_such_benchmark"',
    'python benchmarks/compare_checkouts.py --no-such-option',
    'python -m benchmarks no_such_benchmark', 'python -m benchmarks --no-such-option',
    'pyhton tools/train.py CONFIG', 'head data | python tools/few_shot.py no-such-command'])
def test_a_wrong_command_is_found(command):
    assert faults_of(Command(command, 'README.md'), '')


# What stands for the words of the pages that a reader replaces: the network is untrained.
WORDS = {'CONFIG': 'config.py', 'CHECKPOINT': 'none',
         'IMAGE_OR_FOLDER': 'data/ade_demo/ADEChallengeData2016/images/validation',
         '/scratch/features': 'features', '[NAME]': ''}
RUN_HERE = ['README.md', 'docs/datasets.md', 'docs/deployment.md', 'docs/doctor.md',
            'docs/evaluation.md', 'docs/feature_cache.md', 'docs/frozen_vit.md', 'docs/sweeps.md',
            'docs/testing.md']
LONG_PAGES = {'docs/deployment.md', 'docs/sweeps.md'}  # README exports, too; sweeps tests its own
LONG = {'doctor.py', 'train.py', 'sweep.py'}  # tools that take seconds


@pytest.fixture
def checkout(tmp_path, monkeypatch, run_tool):
    """A clone with few images, a config of 4 iterations, two tests' results and a cache."""
    make_checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_config(Path('config.py'), draw_data(Path('data/ade_demo'), train=16), extra=SMALL_LINEAR)
    for name in 'xy':
        where = ('--work-dir', f'work_dirs/{name}')
        run_tool('test.py', 'config.py', 'none', '--eval', 'mIoU', *where)
    run_tool('cache.py', 'build', 'config.py', '--cfg-options', 'feature_cache.dir=features')
    return tmp_path


def in_our_words(command: str) -> str:
    """Returns a command with what stands for the words that a reader replaces."""
    words = dict(WORDS)
    if 'NAME' in command.split():
        words['NAME'] = next(path.name for path in Path('features').iterdir())
    return ' '.join(words.get(word, word) for word in command.split())


def unmarked(page: str) -> list[str]:
    """The unmarked commands in the blocks of a page."""
    return [command.text for command in commands_in(page) if not command.needs]


def test_short_unmarked_commands_run(checkout, run_tool):
    commands = dict.fromkeys(command for page in RUN_HERE if page not in LONG_PAGES
                             for command in unmarked(page)
                             if Path(shlex.split(command)[1]).name not in LONG)
    assert len(commands) > 12
    for command in commands:
        run_command(in_our_words(command), run_tool)


@pytest.mark.slow
@pytest.mark.parametrize('page', RUN_HERE)
def test_unmarked_commands_run(page, checkout, run_tool):
    commands = unmarked(page)
    assert commands
    for command in commands:
        run_command(in_our_words(command), run_tool)


def test_no_page_is_left_out():
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        if unmarked(name):
            assert name in RUN_HERE or name in RUN_BY, f'no test runs the commands of {name}'
        if name in RUN_BY:
            assert page.stem in (ROOT / 'tests/docs' / RUN_BY[name]).read_text()
