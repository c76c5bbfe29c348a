"""A feature cache whose files are damaged: found by `verify`, and never trained on."""
import random
import shutil
from pathlib import Path

import pytest
import torch
from helpers.data import draw_data, write_config
from helpers.faults import Case, Outcome, damaged
from helpers.runs import SMALL
from helpers.zygote import Zygote

pytestmark = pytest.mark.slow
FROZEN = SMALL + """
model['backbone'].update(freeze_vit=True, drop_path_rate=0.0)
feature_cache = dict(dir='{folder}/cache', views=2, seed=5)
data['workers_per_gpu'] = 0
runner = dict(max_iters=4)
evaluation = dict(interval=100)
"""


@pytest.fixture(scope='module')
def filled(tmp_path_factory) -> Path:
    """A folder with a config, its cache and its run."""
    folder, zygote = tmp_path_factory.mktemp('cached'), Zygote()
    data = draw_data(folder, train=5, val=2)
    config = write_config(folder / 'config.py', data, 'head_tuning_tiny',
                          FROZEN.format(folder=folder))
    zygote.train(config, '--work-dir', folder / 'run', '--seed', 5)
    zygote.close()
    return folder


def files_of(filled: Path) -> list[Path]:
    return sorted(path.relative_to(filled) for path in (filled / 'cache').rglob('*')
                  if path.is_file() and path.stat().st_size)


def ends(filled: Path):
    expected = torch.load(filled / 'run' / 'iter_4.pth', weights_only=True)['state_dict']

    def check(outcome: Outcome) -> str | None:
        found = torch.load(outcome.folder / 'run' / 'iter_4.pth', weights_only=True)['state_dict']
        same = all(torch.equal(found[name], expected[name]) for name in expected)
        return None if same else 'trained on other features'
    return check


def test_damaged_files_of_a_cache(filled, assert_right):
    rng, check, cases = random.Random(0), ends(filled), []

    def damage(name, content, tool):
        def make(folder):
            shutil.copytree(filled / 'cache', folder / 'cache')
            (folder / name).write_bytes(content)
            if tool == 'verify':
                return ['cache.py', 'verify', folder / 'cache']
            return ['train.py', filled / 'config.py', '--work-dir', folder / 'run', '--seed', 5,
                    '--cfg-options', f'feature_cache.dir={folder}/cache']
        return make
    names = files_of(filled)
    assert names
    for name in names:
        data = (filled / name).read_bytes()
        kinds = list(damaged(data, rng))
        for what, content in kinds if len(names) < 4 else rng.sample(kinds, 14):
            shard = name.name.startswith('view')
            cases += [Case(f'cache, {name.name}: {what}', damage(name, content, 'train'), check),
                      Case(f'cache verify, {name.name}: {what}', damage(name, content, 'verify'),
                           must_fail=shard and content != data)]
    assert_right(cases)
