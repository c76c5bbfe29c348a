"""Results with a wrong value at each of their keys: a page of them, or one line."""
import json
import random
from pathlib import Path

import pytest
from helpers.data import write_config
from helpers.faults import Case, Outcome, damaged
from helpers.results import write_some
from helpers.values import VALUES, changed, name_of, paths

pytestmark = pytest.mark.slow
A_PATH = 3


@pytest.fixture(scope='module')
def results(shared_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('results')
    return write_some(write_config(folder / 'config.py', shared_data), folder / 'eval_a.json')


def reports(results: Path, name: str, content: bytes, *more: str):
    def make(folder: Path) -> list:
        for path in (results, results.with_suffix('.npz')):
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / name).write_bytes(content)
        return ['report.py', folder / results.name, *more, '--out', folder / 'page.html']
    return make


def has_page(outcome: Outcome) -> str | None:
    path = outcome.folder / 'page.html'
    if not path.exists():
        return 'no page'
    return None if '</html>' in path.read_text() else 'half a page'


def test_each_key_with_wrong_values(results, assert_right):
    content, rng = json.loads(results.read_text()), random.Random(0)
    found = [path for path in paths(content) if path[0] != 'settings' or len(path) < 3]
    kinds: dict[tuple, list] = {}  # values of classes, colours and images are many of a kind
    for path in found:
        kinds.setdefault((path[0], len(path)), []).append(path)
    chosen = [path for many in kinds.values() for path in rng.sample(many, min(6, len(many)))]
    assert_right([
        Case(f'results: {name_of(path, value)}', reports(
            results, results.name, json.dumps(changed(content, path, value)).encode()), has_page)
        for path in chosen for value in rng.sample(VALUES, A_PATH)])


def test_metrics_of_absent_classes(results, assert_right):
    """Our own format allows null."""
    content = json.loads(results.read_text())
    nulls = [path for path in paths(content) if path[0] == 'metric' and not isinstance(
        eval_at(content, path), (dict, list))]
    assert_right([Case(f'results: {name_of(path, None)}', reports(
        results, results.name, json.dumps(changed(content, path, None)).encode()), has_page,
        must_pass=True) for path in nulls[:20]])


def eval_at(content, path):
    for key in path:
        content = content[key]
    return content


@pytest.mark.parametrize('ending', ['.json', '.npz'])
def test_damaged_files(results, assert_right, ending):
    path, rng = results.with_suffix(ending), random.Random(0)
    assert_right([Case(f'results, {ending}: {what}', reports(results, path.name, content), has_page)
                  for what, content in damaged(path.read_bytes(), rng)])


def test_names_in_a_page_are_no_code(results, assert_right):
    content = json.loads(results.read_text())
    evil = '<script>alert(1)</script>'
    content['classes'][0] = evil
    content['config'] = f'{evil}.py'

    def check(outcome):
        return has_page(outcome) or ('script in the page' if evil in (
            outcome.folder / 'page.html').read_text() else None)
    assert_right([Case('results: script', reports(
        results, results.name, json.dumps(content).encode()), check)])
