"""Rows, targets and the file that a run writes."""
import json
from dataclasses import asdict

import pytest

from benchmarks.context import Context, Skipped, at_least, at_most, within
from benchmarks.profiling import busy
from benchmarks.results import LIMIT, CaseResult, Results, Row, case_of, read_results, write_results
from benchmarks.tables import format_case, format_number, format_row, format_verdict
from benchmarks.timing import measure_in_turns


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(CaseResult('case', 'T'), 'cpu', path=tmp_path / 'case.json')


def test_ratios_say_how_many_times_better():
    time = Row('step', 'ms', [50.0, 50.0, 80.0], {'mmseg': [100.0]}, [40.0])
    assert time.ratio('mmseg') == 2 and time.ratio(LIMIT) == 0.8
    rate = Row('images', 'images/s', [20.0], {'mmseg': [10.0]}, higher_is_better=True)
    assert rate.ratio('mmseg') == 2


@pytest.mark.parametrize('target, reached', [
    (at_least('mmseg', 1.9), True), (at_least('mmseg', 2.1), False), (at_least(LIMIT, 0.8), True),
    (at_least(LIMIT, 0.81), False), (at_most('mmseg', 0.5), True), (at_most('mmseg', 0.4), False),
    (within('mmseg', 0.5), True), (within('mmseg', 0.4), False), (at_least('absent', 1), None)])
def test_targets(target, reached):
    row = Row('step', 'ms', [50.0], {'mmseg': [100.0]}, [40.0], [target])
    assert row.reaches(target) is reached
    word = {True: 'reached', False: 'missed', None: 'not measured'}[reached]
    assert format_verdict(row, target).endswith(word) and word in format_row(row)


def test_rows_are_in_their_unit_and_written_at_once(context):
    context.row('step', 'ms', [0.05, 0.06], {'mmseg': [0.1]}, limit=0.04,
                targets=[at_least('mmseg', 1.3)])
    context.row('peak', 'GiB', 2 ** 31)
    context.fact(loss=1.5)
    context.missing('another', 'transformers is not installed')
    case = case_of(json.loads(context.path.read_text()))
    assert [row.ours for row in case.rows] == [[50.0, 60.0], [2.0]]
    assert case.rows[0].references == {'mmseg': [100.0]} and case.rows[0].limit == [40.0]
    assert case.missing == {'another': 'transformers is not installed'}
    assert case == context.result and case.facts == dict(loss=1.5)
    assert not list(context.path.parent.glob('*.part'))


def test_rows_that_say_nothing_are_refused(context):
    context.row('step', 'ms', 1.0)
    for arguments in (('step', 'ms', 1.0), ('empty', 'ms', [])):
        with pytest.raises(ValueError, match='expected samples, a new title'):
            context.row(*arguments)
    with pytest.raises(ValueError, match="unknown: {'mmseg'}"):
        context.row('other', 'ms', 1.0, targets=[at_least('mmseg', 1)])
    with pytest.raises(Skipped):
        context.skip('no GPU')


def test_tiny_runs_have_no_targets(context):
    context.tiny = True
    assert not context.row('step', 'ms', 1.0, {'mmseg': 1.0},
                           targets=[at_least('mmseg', 2)]).targets


def test_files_are_read_as_they_were_written(tmp_path, capsys):
    results = Results('c', '2026-01-01 00:00', 'a', 'cpu', False, dict(name='A'), dict(torch='2'))
    results.cases.append(CaseResult('case', 'T', rows=[
        Row('step', 'ms', [1.0], {'mmseg': [2.0]}, [0.5], [at_least(LIMIT, 0.8)])]))
    write_results(tmp_path / 'a.json', results)
    assert read_results(tmp_path / 'a.json') == results
    for content, words in (('{', 'JSONDecodeError'), ('{}', "KeyError('format')"),
                           (json.dumps({**asdict(results), 'format': 9}), 'format 9, expected 1')):
        (tmp_path / 'b.json').write_text(content)
        with pytest.raises(SystemExit, match='b.json') as end:
            read_results(tmp_path / 'b.json')
        assert words in str(end.value)
    assert '1 targets missed' in format_case(results.cases[0])


@pytest.mark.parametrize('value, text', [
    (59.2, '59.2'), (0.0123456, '0.01235'), (4250.0, '4,250'), (0.0, '0'), (999.96, '1000'),
    (3.14159, '3.142'), (1234567.0, '1,234,567'), (1e-12, '0')])
def test_numbers(value, text):
    assert format_number(value) == text


def test_callables_take_turns():
    calls = []
    work = {name: lambda name=name: calls.append(name) for name in 'ab'}
    samples = measure_in_turns(work, 'cpu', seconds=0.0, rounds=3, warm_up=1)
    assert calls == ['a', 'b', 'a', 'b', 'b', 'a', 'a', 'b']  # warm-up, then rounds
    assert all(len(found) == 3 for found in samples.values())


def test_no_round_begins_after_the_deadline():
    samples = measure_in_turns({'a': lambda: None}, 'cpu', seconds=0.0, until=0.0)
    assert len(samples['a']) == 1


def test_time_of_overlapping_kernels_counts_once():
    events = [dict(ts=0, dur=10), dict(ts=5, dur=10), dict(ts=20, dur=5), dict(ts=21, dur=1)]
    assert busy(events) == 20
