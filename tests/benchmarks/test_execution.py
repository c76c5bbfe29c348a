"""Runs of benchmarks: cases that fail, hang or find no time stop no other, and nothing is lost."""
import json
import sys

import pytest
import torch
from helpers.commands import run

from benchmarks import __main__ as front
from benchmarks import execution, machine
from benchmarks.registry import Benchmark, find_benchmarks, load_case
from benchmarks.results import read_results

# Writes a result, as a case does after each row, before or after what a test is about.
FAKE = """
import json, os, sys, time
{before}
open(sys.argv[1], 'w').write(json.dumps(dict(
    name={name!r}, title='T', state={state!r}, seconds=0, flags={flags}, missing={{}}, facts={{}},
    profiles={{}}, rows=[dict(title='step', unit='ms', ours=[1.5], references={{}}, limit=[],
                              targets=[], higher_is_better=False, notes='')])))
print('a row')
{after}
"""
ABOUT = dict(device='cpu', machine=dict(name='A CPU (R)', cores=2), versions=dict(torch='2'))


@pytest.fixture
def front_of(monkeypatch, tmp_path):
    """Runs the front with cases of a test: (cases, *options) -> (code, results)."""
    def front_of(cases: dict, *options: str):
        limits = {name: script.pop('minutes', 1.0) for name, script in cases.items()}
        monkeypatch.setattr(front, 'find_benchmarks', lambda: {
            name: Benchmark(name, f'T {name}', limits[name], **script.pop('fields', {}))
            for name, script in cases.items()})
        monkeypatch.setattr(execution, 'describe_machine', lambda device: ABOUT)
        monkeypatch.setattr(execution, 'command_of', lambda one, settings, limit, part: [
            sys.executable, '-c', script_of(one.name, **cases[one.name]), str(part)])
        code = front.run(['--out', str(tmp_path / 'out'), *options])
        path, = (tmp_path / 'out').glob('a-cpu_*.json')
        return code, read_results(path)
    return front_of


def script_of(name: str, before: str = '', state: str = 'ok', flags: tuple = (),
              after: str = '') -> str:
    return FAKE.format(name=name, before=before, state=state, flags=list(flags), after=after)


def test_a_case_that_fails_stops_no_other(front_of, tmp_path, capfd):
    code, results = front_of(dict(
        good={}, broken=dict(before='raise ValueError'),
        wrong=dict(state='wrong', flags=('labels differ',), after='sys.exit(1)'),
        crashed=dict(after='os.kill(os.getpid(), 11)'),
        slow=dict(after='time.sleep(60)', minutes=0.02), last={}))
    assert {case.name: case.state for case in results.cases} == dict(
        good='ok', broken='failed', wrong='wrong', crashed='failed', slow='timed out', last='ok')
    assert code == 1
    by_name = {case.name: case for case in results.cases}
    assert by_name['slow'].rows[0].ours == [1.5]  # what was written before is kept
    assert by_name['slow'].flags == ['killed after 1 s']
    assert by_name['wrong'].flags == ['labels differ'] and not by_name['broken'].rows
    assert 'exit code -11' in by_name['crashed'].flags[0]
    assert 'ValueError' in (tmp_path / 'out/log.txt').read_text()
    assert 'a row' in capfd.readouterr().out  # shown while it runs


def test_results_are_whole_after_each_case(front_of, tmp_path):
    see = ("import glob\nfound, = glob.glob(os.path.dirname(sys.argv[1]) + '/a-cpu_*.json')\n"
           "assert len(json.load(open(found))['cases']) == 1")
    code, results = front_of(dict(one={}, two=dict(before=see)), '--device', 'cpu', '--against',
                             str(tmp_path))
    assert results.command == 'python -m benchmarks --device cpu --against CHECKOUT'
    assert code == 0 and [case.state for case in results.cases] == ['ok', 'ok']
    assert {path.suffix for path in (tmp_path / 'out').iterdir()} == {'.json', '.txt'}


def test_what_has_no_time_or_device_is_not_run(front_of):
    code, results = front_of(dict(one={}, two={}), '--minutes', '0.1')
    assert code == 1 and [case.state for case in results.cases] == ['not run'] * 2
    assert results.cases[0].flags == ['no time was left']


def test_names_choose_and_suites_leave_out(front_of):
    cases = dict(one={}, gpu=dict(fields=dict(devices=('cuda',))), long=dict(fields=dict(suite=())))
    names = [case.name for case in front_of({name: dict(case) for name, case in cases.items()},
                                            '--device', 'cpu')[1].cases]
    assert names == ['one']


def test_a_device_that_a_case_cannot_use_is_said(front_of):
    code, results = front_of(dict(gpu=dict(fields=dict(devices=('cuda',)))), 'gpu')
    assert code == 0 and results.cases[0].state == 'skipped'
    assert results.cases[0].flags == ['runs on cuda alone']


def test_wrong_input_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        front.run(['machine', 'none', '--out', str(tmp_path / 'out')])
    text = capsys.readouterr().err.splitlines()[-1]
    assert 'unknown none; expected some of machine, linear_probing,' in text
    assert not (tmp_path / 'out').exists()


def test_a_machine_without_a_gpu_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr('sys.argv', ['machine', 'cuda'])
    with pytest.raises(SystemExit) as end:
        machine.main()
    said = capsys.readouterr().err
    assert end.value.code == machine.NO_GPU
    assert said.startswith('error: no CUDA GPU that PyTorch') and said.count('\n') == 1
    monkeypatch.setattr('sys.argv', ['machine'])
    machine.main()
    assert json.loads(capsys.readouterr().out)['device'] == 'cpu'


def test_the_list_imports_no_torch():
    text = run('python', '-X', 'importtime', '-m', 'benchmarks', '--list')
    assert 'linear_probing' in text and '| torch' not in text


@pytest.mark.slow
def test_a_case_runs_on_the_cpu(tmp_path):
    """The smallest one: machine, worker, rows and the file, for real."""
    text = run('python', '-m', 'benchmarks', 'machine', '--device', 'cpu', '--tiny', '--out',
               tmp_path)
    path, = tmp_path.glob('tiny_*.json')
    results = read_results(path)
    case, = results.cases
    assert case.state == 'ok' and results.tiny and results.device == 'cpu'
    assert len(case.rows) == 3 and all(len(row.ours) >= 1 for row in case.rows)
    assert results.versions['torch'] == torch.__version__ and results.machine['cores'] >= 1
    assert 'product in float32' in text and 'ok' in text.splitlines()[-2]
    json.loads(path.read_text())


# They train, label or measure in processes of their own, and need no data set or network.
TRIED = [name for name, one in find_benchmarks().items()
         if name not in ('machine', 'start_up', 'feature_cache_views', 'tests')]


@pytest.mark.slow
@pytest.mark.parametrize('name', TRIED)
def test_all_cases_run_on_the_cpu(name, tmp_path):
    run('python', '-m', 'benchmarks', name, '--device', 'cpu', '--tiny', '--minutes', '9', '--out',
        tmp_path)
    path, = tmp_path.glob('tiny_*.json')
    case, = read_results(path).cases
    assert case.rows or case.state == 'skipped'
    assert load_case(name).benchmark == find_benchmarks()[name]
