"""The page on many work dirs: groups that can be compared, folders without results."""
import json
import re

import pytest
from helpers.report_page import Page, row_of
from helpers.results import write_drawn


@pytest.fixture(scope='module')
def work_dirs(tmp_path_factory):
    """Work dirs: three runs on the same data, one on other images, a sweep, and others."""
    root = tmp_path_factory.mktemp('work_dirs')
    for name, options in (('good', dict(wrong=.1)), ('fair', dict(wrong=.3, others=20)),
                          ('<b>poor', dict(wrong=.6)), ('other', dict(images=20)),
                          ('tested_sweep/l4_lr1', dict(wrong=.2))):
        (root / name).mkdir(parents=True)
        write_drawn(root / name / 'eval_single_scale_1.json', **options)
    (root / 'good' / 'eval_single_scale_1.html').touch()
    run = json.loads((root / 'good' / 'eval_single_scale_1.json').read_text())
    run['checkpoint'] = dict(path='/runs/latest.pth', file='iter_80000.pth', sha256='0123456789ab')
    (root / 'good' / 'eval_single_scale_1.json').write_text(json.dumps(run))
    (root / 'empty').mkdir()
    (root / 'damaged').mkdir()
    (root / 'damaged' / 'eval_single_scale_1.json').write_text('{')
    (root / 'notes.txt').touch()
    head = dict(name='l4_lr1', best_mIoU=.25, checkpoint='best_mIoU_iter_9.pth')
    for name in ('sweep', 'tested_sweep'):
        (root / name).mkdir(exist_ok=True)
        heads = [head] if name == 'sweep' else [head, dict(head, name='l9_lr1')]
        (root / name / 'sweep.json').write_text(json.dumps(dict(heads=heads)))
    return root


def test_leaderboard_groups_what_can_be_compared(work_dirs, run_tool):
    code, output, error = run_tool('report.py', *sorted(work_dirs.iterdir()))
    path = work_dirs / 'leaderboard.html'
    assert (code, output) == (0, f'{path}\n')
    text = path.read_text()
    words = Page(text).words
    assert '5 test runs in 2 groups' in words and 'different groups cannot be compared' in words
    first, _, rest = words.partition('Differs from group 1 in its images, labels.')
    assert 'Group 1: 30 images of ' in first
    assert re.search('Group 2: 20 images of [^ ]*/other/images, 40 classes Find $', first)
    order = ['good', 'tested_sweep/l4_lr1', 'fair', '<b>poor']
    places = [first.rindex(f' {name} ') for name in order]
    assert places == sorted(places) and ' other ' in rest
    assert '<b>poor' not in text
    rows = {name: row_of(text, name) for name in ('good', 'fair')}
    assert rows['good']['Classes'] == '9' and rows['fair']['Classes'] == '29'
    assert rows['good']['Common mIoU'] == rows['good']['mIoU']
    assert float(rows['fair']['Common mIoU']) > float(rows['fair']['mIoU'])
    assert rows['good']['Iterations'] == '80000'
    assert rows['good']['Checkpoint'] == 'iter_80000.pth 01234567'
    assert '<a href="good/eval_single_scale_1.html">good</a>' in text and 'fair</a>' not in text
    for name, reason in (('empty', 'holds no eval_*.json'), ('notes.txt', 'is a file'),
                         ('tested_sweep', 'sweep of 2 heads, 1 of them not tested'),
                         ('damaged', 'eval_single_scale_1.json'),
                         ('sweep', 'best in its own evaluations is l4_lr1, mIoU 25.00')):
        assert reason in row_of(text, name)['Reason']
        assert f'no results: {work_dirs / name}: ' in error
    code, _, _ = run_tool('report.py', *sorted(work_dirs.iterdir()))  # the page is among them
    assert code == 0 and Page(path.read_text()).words == words


def test_runs_on_the_same_data_have_one_table(work_dirs, run_tool, tmp_path):
    folders = [work_dirs / name for name in ('good', '<b>poor', 'tested_sweep')]
    assert run_tool('report.py', *folders, '--out', tmp_path / 'page.html')[0] == 0
    text = (tmp_path / 'page.html').read_text()
    assert 'All runs were measured on the same images' in text and 'Common mIoU' not in text
    assert 'Group' not in Page(text).words


def test_a_sweep_alone_is_a_leaderboard_of_its_runs(work_dirs, run_tool):
    code, output, error = run_tool('report.py', work_dirs / 'tested_sweep')
    page = work_dirs / 'tested_sweep' / 'leaderboard.html'
    assert (code, output) == (0, f'{page}\n') and 'l4_lr1' in Page(page.read_text()).words
    assert 'sweep of 2 heads, 1 of them not tested' in error
    code, _, error = run_tool('report.py', work_dirs / 'sweep')
    assert code == 1 and 'none of them tested; the best in its own evaluations is l4_lr1' in error


def test_no_results_at_all_and_a_path_that_is_not_there_are_errors(work_dirs, run_tool, tmp_path):
    names = ('one', 'two', 'three')
    for name in names:
        (tmp_path / name).mkdir()
    code, _, error = run_tool('report.py', *(tmp_path / name for name in names))
    assert code == 1 and 'none of 3 folders holds results (eval_*.json), such as' in error
    folders = work_dirs / 'good', work_dirs / 'fair', tmp_path / 'goof'
    code, _, error = run_tool('report.py', *folders)
    assert code == 1 and 'goof does not exist' in error
    assert not (tmp_path / 'leaderboard.html').exists()

