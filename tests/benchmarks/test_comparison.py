"""What `python -m benchmarks compare` takes for slower: more than the noise of repeated samples."""
import pytest

from benchmarks import __main__ as front
from benchmarks.comparison import Change, compare, spread
from benchmarks.results import CaseResult, Results, Row, write_results


def change(old: list[float], new: list[float], **settings) -> Change:
    return Change('c: step', *(Row('step', 'ms', ours, **settings) for ours in (old, new)))


def results(*rows: Row, **changes) -> Results:
    settings = dict(command='c', date='2026-01-01 00:00', commit='a', device='cpu', tiny=False,
                    machine=dict(name='A'), versions=dict(torch='2'))
    return Results(**{**settings, **changes}, cases=[CaseResult('case', 'T', rows=list(rows))])


@pytest.mark.parametrize('old, new, verdict', [
    ([10.0, 10.1, 9.9, 10.0], [10.1, 10.0, 10.2, 10.1], ''),  # within the spread
    ([10.0, 10.1, 9.9, 10.0], [11.0, 11.1, 10.9, 11.0], 'slower'),
    ([11.0, 11.1, 10.9, 11.0], [10.0, 10.1, 9.9, 10.0], 'faster'),
    ([10.0, 12.0, 8.0, 10.0], [11.0, 13.0, 9.0, 11.0], ''),  # as large, but noisier
    ([10.0, 10.1, 9.9, 30.0, 10.0], [11.0, 11.1, 10.9, 11.0, 11.0], 'slower'),  # one was disturbed
    ([10.0, 10.0, 10.0, 10.0], [10.05, 10.05, 10.05, 10.05], ''),  # below what ever counts
    ([10.0], [10.3], ''),  # nothing is known of the noise of one sample
    ([10.0], [12.0], 'slower')])
def test_a_change_counts_beyond_the_noise(old, new, verdict):
    assert change(old, new).verdict == verdict
    rates = change([1 / x for x in old], [1 / x for x in new], higher_is_better=True)
    assert rates.verdict == verdict


def test_spread_is_of_the_middle_half():
    assert spread([10.0, 10.0, 10.0, 10.0, 50.0]) < spread([10.0, 11.0, 9.0, 12.0, 8.0])
    assert spread([0.0, 0.0]) == 0


def test_what_is_no_speed_is_worse_or_better():
    rows = [Row('peak', 'GiB', [value]) for value in (10.0, 20.0)]
    assert Change('c: peak', *rows).verdict == 'worse'
    assert Change('c: peak', *rows[::-1]).verdict == 'better'
    rates = [Row('loading', 'images/s', [value], higher_is_better=True) for value in (9., 6.)]
    assert Change('c: loading', *rates).verdict == 'slower'


def test_runs_are_compared(tmp_path, capsys, monkeypatch):
    old = results(Row('step', 'ms', [10.0, 10.1], {'mmseg': [20.0, 20.1]}), Row('gone', 'ms', [1.]),
                  Row('unit', 'ms', [1.0]))
    new = results(Row('step', 'ms', [12.0, 12.1], {'mmseg': [24.0, 24.1]}),
                  Row('unit', 's', [1.0]), machine=dict(name='B'))
    text, slower = compare(old, new)
    assert slower and 'slower' in text and '+19.9%' in text
    assert 'the machine differs: name A, then B' in text
    assert 'mmseg, measured beside it, changed by +20.0%' in text  # so the machine may have
    assert '2 rows are in one of the runs alone' in text
    assert not compare(old, old)[1]
    for name, run in (('old', old), ('new', new)):
        write_results(tmp_path / f'{name}.json', run)
    for names, code in ((('old', 'new'), 1), (('new', 'old'), 0)):
        monkeypatch.setattr('sys.argv', ['benchmarks', 'compare', *(
            str(tmp_path / f'{name}.json') for name in names)])
        with pytest.raises(SystemExit) as end:
            front.main()
        assert end.value.code == code
    assert 'faster' in capsys.readouterr().out
