"""The benchmarks of heads: what is counted, how seeds are pooled, the tables of docs/heads.md."""
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.commands import ROOT

from benchmarks.cases import heads_compared
from benchmarks.head_costs import HEADS, LINEAR, PLAIN_MASK, UPERNET, HeadCost, cost_of_head
from benchmarks.head_runs import CONFIGS, DEMO, RATES, HeadTask, compare_heads, miou
from benchmarks.head_scores import table
from benchmarks.page import FILES
from benchmarks.results import read_results
from benchmarks.transfer import SEED_OF_RATES, SEEDS


def results_of(intersect: list[list[int]], names: str = 'abcdefgh') -> SimpleNamespace:
    """A test run of images of 10 pixels a class, by the pixels that are right."""
    right = np.array(intersect)
    return SimpleNamespace(areas=(right, 20 - right), ground_truth_areas=np.full_like(right, 10),
                           images=SimpleNamespace(names=np.array(list(names))))


def test_a_step_of_the_linear_head_is_a_product_and_its_two_gradients():
    cost = cost_of_head(LINEAR, 'tiny', crops=2)
    classifier = 192 * 150
    assert cost.parameters == classifier + 150 + 2 * 192
    of_loss = cost.forward - 2 * 8 * 8 * classifier  # for 64 patches
    assert of_loss > 0 and cost.backward >= 2 * 2 * 8 * 8 * classifier - 1
    assert cost.peak > 4 * 4 * cost.parameters  # weights, gradients and moments in float32


def test_seeds_are_pooled_by_image():
    low, high = [[4, 6]] * 8, [[6, 8]] * 8
    found = compare_heads([results_of(high), results_of(low)], [results_of(low), results_of(low)])
    both = [[10, 14]] * 8
    assert found.means[1] == pytest.approx(miou((np.array(both), 40 - np.array(both))) / 100)
    assert found.miou > 0 and found.differs and found.miou_p < 0.05
    with pytest.raises(ValueError, match='2 lists of images'):
        compare_heads([results_of(high)], [results_of(low, 'abcdefgx')])


def test_rates_are_tried_with_a_seed_of_their_own(monkeypatch):
    jobs = []
    monkeypatch.setattr(HeadTask, '_run', lambda task, job: jobs.append(job) or results_of(
        [[1 + RATES.index(job.rate), 5]] * 8))
    task = HeadTask(CONFIGS[DEMO], {}, {'data.test.part': 'val'}, 1, 'cpu')
    found = task.choose_rates([UPERNET, PLAIN_MASK])
    assert {job.seed for job in jobs} == {SEED_OF_RATES} and SEED_OF_RATES not in SEEDS
    assert all(job.settings == {'data.test.part': 'val'} for job in jobs)
    assert list(found) == [UPERNET, PLAIN_MASK] and list(found[UPERNET]) == list(task.rates)
    assert max(found[UPERNET], key=found[UPERNET].get) == max(task.rates)


def test_the_tables_compare_with_upernet():
    lines = table({UPERNET: [10.0, 20.0], PLAIN_MASK: [13.0, 23.0]},
                               {UPERNET: 0.01, PLAIN_MASK: 0.003})
    assert lines[2:] == ['| UPerNet | 0.01 | 15.00 ± 63.53 |  |',
                         '| PlainMaskHead | 0.003 | 18.00 ± 63.53 | +3.00 ± 0.00 |']
    costs = {UPERNET: HeadCost(4_000_000, 10**12, 3 * 10**12, 2**31),
             PLAIN_MASK: HeadCost(1_000_000, 10**11, 3 * 10**11, 2**30)}
    assert heads_compared.table(costs)[3] == (
        '| PlainMaskHead | 1.0 | 0.100 | 0.300 | 10.0% | 1.0 |')


def test_the_page_has_the_newest_tables():
    page = (ROOT / 'docs/heads.md').read_text('utf-8')
    runs = sorted(map(read_results, FILES.glob('*.json')), key=lambda run: run.date)
    found = {case.name: case.facts for run in runs for case in run.cases}
    for name in heads_compared.SIZES.values():
        costs = {head: HeadCost(**cost)
                 for head, cost in found['heads_compared'][f'heads of {name}'].items()}
        assert set(costs) == set(HEADS) and '\n'.join(heads_compared.table(costs)) in page
    scored = {**found.get('heads_scored', {}), **found.get('heads_scored_on_rooms', {})}
    for name in (key.removesuffix(': scores') for key in scored if key.endswith(': scores')):
        scores, rates = (scored[f'{name}: {what}'] for what in ('scores', 'rates'))
        assert '\n'.join(table(scores, rates)) in page
