"""docs/recipes.md and README.md say of every config what the config says.

The configs are read from tests/configs/resolved.json, which test_resolved.py compares with them.
"""
import ast
import json
import re

import pytest
from helpers.commands import ROOT
from helpers.docs import script
from mmcv import Config

recipes = script('recipes')


@pytest.fixture(scope='module')
def configs():
    record = json.loads((ROOT / 'tests/configs/resolved.json').read_text())
    settings = [(key, ast.literal_eval(text)) for key, text in record['settings']]
    found = {}
    for name, indices in record['configs'].items():
        cfg = found[name] = Config()
        for key, value in (settings[i] for i in indices):
            cfg.merge_from_dict({key: value})
    return {name: cfg for name, cfg in found.items() if not name.startswith('_base_')}


def test_the_tables_are_those_of_the_configs(configs):
    page = recipes.PAGE.read_text('utf-8')
    assert recipes.update(page, configs) == page, 'run `python scripts/docs/recipes.py`'
    for name in configs:
        assert page.count(f'](../configs/{name})') == 1, name


def test_the_readme_leads_to_the_recipes_of_all_releases(configs):
    page = recipes.README.read_text('utf-8')
    assert recipes.update(page, configs) == page, 'run `python scripts/docs/recipes.py`'
    table = recipes.table('releases', configs)
    assert table.count('](configs/') == 6 * len(recipes.RELEASES)
    assert all((ROOT / path).is_file() for path in re.findall(r'\]\((configs/.+?)\)', table))


def test_the_page_says_how_each_release_is_downloaded():
    page = recipes.PAGE.read_text('utf-8')
    for release in recipes.RELEASES:
        assert page.count(f'\n{release.download}\n') == 1 and f'`{release.path}' in page


def test_a_changed_config_changes_its_row(configs):
    name = 'tiny/linear_probing_tiny.py'
    cfg = configs[name]
    cfg.data.samples_per_gpu, cfg.model.backbone.freeze_vit = 3, False
    assert recipes.row(name, cfg, published=False)[:6] == [
        'backbone, head', 'linear', 'demo data: 160', '150', '112', '3 x 1']
