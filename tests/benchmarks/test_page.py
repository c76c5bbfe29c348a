"""docs/performance.md: what the files of results give."""
import pytest

from benchmarks import page
from benchmarks.context import at_least
from benchmarks.registry import Benchmark, find_benchmarks
from benchmarks.results import CaseResult, Results, Row, write_results

CASES = {name: Benchmark(name, f'Title of {name}') for name in ('step', 'sweep')}


def write(folder, name: str, *cases: CaseResult, **changes) -> None:
    settings = dict(command='python -m benchmarks', date='2026-01-01 00:00', commit='abc',
                    device='cuda', tiny=False, machine=dict(
                        name='Card', gpu='Card', gpu_memory_gib=80.0, driver='1'),
                    versions=dict(torch='2'), cases=list(cases))
    write_results(folder / name, Results(**{**settings, **changes}))


def case(*rows: Row, **settings) -> CaseResult:
    return CaseResult('step', 'T', rows=list(rows), **settings)


def test_the_page_is_what_the_files_give():
    assert page.PAGE.read_text() == page.generate(page.FILES, find_benchmarks()), (
        'run: python -m benchmarks page')


def test_rows_are_those_of_the_newest_run(tmp_path):
    write(tmp_path, 'new.json', case(Row('one', 'ms', [40.0])), date='2026-02-01 00:00')
    write(tmp_path, 'old.json', case(Row('one', 'ms', [50.0]), Row('two', 'ms', [7.0], {
        'mmseg': [14.0]}, targets=[at_least('mmseg', 3)])))
    text = page.generate(tmp_path, CASES)
    assert '| one | 40 ms | | | | | 2 |' in text and '50 ms' not in text
    assert '| two | 7 ms | mmseg | 14 ms | 2.00 x | ≥ 3 x of mmseg: 2, missed | 1 |' in text
    assert text.count('## Card') == 1 and '80.0 GiB, driver 1' in text


def test_what_was_never_measured_is_listed(tmp_path):
    write(tmp_path, 'a.json', case(Row('one', 'ms', [1.0]), Row('two', 'ms', [1.0])))
    write(tmp_path, 'b.json', case(Row('one', 'ms', [1.0]), missing={
        'three': 'transformers is not installed'}), machine=dict(
            name='Other', gpu_memory_gib=80.0, driver='1'))
    first, _, second = page.generate(tmp_path, CASES).partition('## Other')
    assert '- `sweep`: Title of sweep' in first and '- `step`, three' in first
    assert '- `step`, two' in second
    assert '- `step`, three: transformers is not installed' in second
    assert '## Nothing was measured on a CPU' in second


def test_profiles_are_shown(tmp_path):
    write(tmp_path, 'a.json', case(Row('one', 'ms', [1.0]), profiles={'a step': dict(
        kernels=812, copied_bytes=10_200_000, ms=53.25, idle_share=0.031, host_waits=1.0)}))
    assert '| a step | 53.25 | 812 | 10.2 MB | 3.1% | 1 |' in page.generate(tmp_path, CASES)


def test_tiny_results_are_refused(tmp_path):
    write(tmp_path, 'a.json', case(Row('one', 'ms', [1.0])), tiny=True)
    with pytest.raises(SystemExit, match='a.json was measured with --tiny'):
        page.generate(tmp_path, CASES)


def test_check_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, 'PAGE', tmp_path / 'performance.md')
    assert page.main(check=True) == 1 and 'python -m benchmarks page' in capsys.readouterr().out
    assert page.main(check=False) == 0 and page.main(check=True) == 0
