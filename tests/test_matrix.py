"""The matrix of versions: what a cell installs, and what becomes of cells that cannot be made."""
import re
import runpy
import sys

import pytest
from helpers.commands import ROOT
from helpers.unavailable import lacking, skip_if_unavailable

FOLDER = ROOT / 'scripts' / 'matrix'

# Stands for uv: writes its arguments down, and fails where they hold a word.
UV = """#!/bin/sh
echo "$*" >>"{calls}"
case "$*" in
    *python\\ find*) exit 2 ;;
    *"{word}"*) echo "{error}"; exit 1 ;;
    venv*) for last; do :; done; mkdir -p "$last/bin"
        printf '#!/bin/sh\\necho "{tests}"\\nexit {code}\\n' >"$last/bin/python"
        chmod +x "$last/bin/python" ;;
esac
"""


@pytest.fixture
def modules(monkeypatch):
    """The modules of the script, which is a folder: cells and environments."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ('cells', 'environments'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import cells
    import environments
    return cells, environments


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, modules):
    """Runs the script for cells of three; returns its exit code, lines, and the calls of uv."""
    calls = tmp_path / 'calls'
    here = f'{sys.version_info[0]}.{sys.version_info[1]}'
    table = tmp_path / 'table.yaml'
    table.write_text(f"old: {{python: '{here}', packages: [torch==2.6.0]}}\n"
                     f"both: {{python: ['3.99', '{here}']}}\n"
                     "none: {python: ['3.98', '3.99']}\n")
    (tmp_path / 'build').mkdir()
    monkeypatch.setattr(modules[0], 'BUILD', tmp_path / 'build')
    monkeypatch.setattr(modules[0].read_table, '__defaults__', (table,))
    monkeypatch.setattr(modules[1], 'DISK', 0)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')

    def run(*arguments, word='no such word', error='', tests='9 passed in 1s', code=0):
        (tmp_path / 'uv').write_text(UV.format(calls=calls, word=word, error=error, tests=tests,
                                               code=code))
        (tmp_path / 'uv').chmod(0o755)
        monkeypatch.setattr(sys, 'argv', ['matrix', *arguments])
        calls.write_text('')
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(FOLDER), run_name='__main__')
        return end.value.code, capsys.readouterr().out, calls.read_text()

    return run


def test_cells_of_the_table_differ_from_the_tested_versions_where_they_say_so(modules):
    cells = modules[0].read_table()
    assert {'lowest', 'newest'} <= set(cells)
    for cell in cells.values():
        version = cell.python if isinstance(cell.python, str) else cell.python[0]
        lines = modules[0].requirements_of(cell, version)
        assert set(cell.packages) <= set(lines)
        names = [re.split('[=<>]', line)[0] for line in lines]
        assert len(names) == len(set(names)) and 'torchvision' in lines
        assert {'timm', 'numpy', 'pytest', 'setuptools'} <= set(names)
        assert not {'ruff', *cell.without} & set(names)
        assert ('transformers' in names) == cell.optional
        for path in cell.tests:
            assert (ROOT / path).exists()
    for path in re.findall("'(tests/.*?)'", (FOLDER / '__main__.py').read_text()):
        assert (ROOT / path).exists()


def test_lowest_and_newest_are_the_ends_of_what_is_supported(modules):
    setup = (ROOT / 'setup.py').read_text()
    cells = modules[0].read_table()
    low, high = re.search(r"python_requires='>=3\.(\d+),<3\.(\d+)'", setup).groups()
    assert cells['lowest'].python == f'3.{low}'
    assert cells['newest'].python[0] == f'3.{int(high) - 1}'
    torch = re.search(r"'torch>=([\d.]+)'", setup).group(1)
    assert f'torch=={torch}.0' in cells['lowest'].packages


def test_cells_pass_and_are_removed(run, tmp_path):
    code, words, calls = run('old')
    assert code == 0 and 'old: passed, 9 passed in 1s' in words
    assert 'torch==2.6.0' in calls and '--only-binary :all:' in calls
    assert not (tmp_path / 'build' / 'old').exists()
    assert run('old', '--keep')[0] == 0 and (tmp_path / 'build' / 'old').exists()
    assert run('old', '--keep')[2] == ''  # what is there in full is not made again


def test_failing_tests_fail_and_leave_their_environment(run, tmp_path):
    code, words, _ = run('old', tests='1 failed, 8 passed', code=1)
    assert code == 1 and 'old: failed, 1 failed, 8 passed (' in words
    assert (tmp_path / 'build' / 'old').exists()


@pytest.mark.parametrize('error, outcome', [
    ('x Because torch==2.6.0 has no wheels with a matching Python ABI tag', 'skipped, no wheel'),
    ('ERROR: No matching distribution found for torch==2.6.0', 'skipped, no wheel'),
    ('error: Failed to fetch https://index/simple', 'skipped, the package index does not answer'),
    ('error: No space left on device', 'failed, set-up failed: error: No space left')])
def test_what_is_missing_here_is_skipped_and_what_is_wrong_fails(run, error, outcome):
    code, words, _ = run('old', word='torch==2.6.0', error=error)
    assert f'old: {outcome}' in words and code == outcome.startswith('failed')


def test_an_interpreter_that_is_missing_is_a_reason_to_skip(run):
    code, words, calls = run('none')
    assert code == 0 and 'none: skipped, no Python 3.99' in words
    assert '--no-python-downloads' in calls
    assert '--no-python-downloads' not in run('none', '--fetch-python')[2]
    words = run('old', 'both', '--jobs', '2')[1]
    assert 'old: passed' in words and 'both: passed' in words


def test_an_unknown_cell_is_refused(run):
    assert run('oldest')[0] == 2


@pytest.mark.parametrize('words, outcome', [
    ("E   ModuleNotFoundError: No module named 'peft'", 'skipped'),
    ('E   InputError: adapt needs the library peft, which is not installed: pip', 'skipped'),
    ("E   ModuleNotFoundError: No module named 'pefts'", 'failed'),
    ("E   ModuleNotFoundError: No module named 'torch'", 'failed')])
def test_a_test_without_its_optional_package_is_skipped(words, outcome, monkeypatch):
    monkeypatch.setattr('helpers.unavailable.find_spec', lambda name: None)
    lacking.cache_clear()
    report = pytest.TestReport('a', ('a', 1, 'a'), {}, 'failed', words, 'call')
    skip_if_unavailable(report, 'a', 1)
    lacking.cache_clear()
    assert report.outcome == outcome
