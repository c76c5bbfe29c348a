"""The benchmark of what is tuned: learning rates, intervals, and the table of docs/tuning.md."""
from pathlib import Path

import pytest
from helpers.commands import ROOT

from benchmarks.cases.tuning import FULL, HEADER, LAST, LORA, PROBE, table
from benchmarks.intervals import Mean, differences
from benchmarks.page import FILES
from benchmarks.results import read_results
from benchmarks.transfer import SEED_OF_RATES, SEEDS, Size, Transfer

# mIoU by learning rate; the search begins at 3e-3, the fourth of eight.
BEST = {'here': {1e-3: 1, 3e-3: 2, 1e-2: 1}, 'up': {3e-3: 1, 1e-2: 2, 3e-2: 3, 1e-1: 2},
        'down': {1e-2: 0, 3e-3: 1, 1e-3: 2, 3e-4: 3, 1e-4: 3}, 'edge': {
            3e-3: 1, 1e-2: 2, 3e-2: 3, 1e-1: 4, 3e-1: 5}}


@pytest.mark.parametrize(('name', 'rate'), [('here', 3e-3), ('up', 3e-2), ('down', 3e-4),
                                            ('edge', 3e-1)])
def test_the_rate_is_the_best_that_a_climb_finds(name, rate, monkeypatch):
    tried = []

    def score(task, job):
        assert job.seed == SEED_OF_RATES not in SEEDS
        assert job.part == 'val'  # the scored images are others
        tried.append(job.rate)
        return next(miou for known, miou in BEST[name].items() if known == pytest.approx(job.rate))

    monkeypatch.setattr(Transfer, '_score', score)
    task = Transfer(Path(), Path(), Size({}, {}, 0, 0), 'cpu', 0.0)
    assert task.choose_rates({name: {}})[name] == pytest.approx(rate)
    assert sorted(tried) == pytest.approx(sorted(BEST[name]))  # each once, and no other


def test_intervals_are_student_s():
    # scipy.stats.t.interval(0.95, 4, loc=mean, scale=sem) of these five
    found = Mean.of([20.0, 22.0, 21.0, 23.0, 24.0])
    assert found.value == 22.0 and found.half == pytest.approx(1.9632, abs=1e-3)
    assert f'{found:.1f}' == '22.0 ± 2.0' and f'{found:+.1f}' == '+22.0 ± 2.0'
    assert Mean.of(differences([3.0, 5.0], [1.0, 3.0])) == Mean(2.0, 0.0)


def test_the_table_pairs_seeds():
    scores = {PROBE: [10.0, 20.0], LAST: [13.0, 23.0], LORA: [12.0, 22.0], FULL: [14.0, 24.0]}
    lines = table(scores, dict.fromkeys(scores, 0.003), dict.fromkeys(scores, 1000))
    assert lines[2] == f'| {PROBE} | 1,000 | 0.003 | 15.00 ± 63.53 |  |  |'
    assert lines[4] == f'| {LORA} | 1,000 | 0.003 | 17.00 ± 63.53 | +2.00 ± 0.00 | 50% |'


def test_the_page_has_the_newest_table():
    runs = sorted(map(read_results, FILES.glob('*.json')), key=lambda run: run.date)
    cases = [case for run in runs for case in run.cases if case.name == 'tuning']
    facts = cases[-1].facts
    lines = table(facts['scores'], facts['rates'], facts['weights'])
    page = (ROOT / 'docs/tuning.md').read_text('utf-8')
    assert page.count(HEADER[0]) == 1 and '\n'.join(lines) in page
    assert cases[-1].rows and not [row.title for row in cases[-1].rows for target in row.targets
                                   if not row.reaches(target)]
