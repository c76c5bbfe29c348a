"""Sweeps and feature caches on a GPU."""
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.data import draw_data, write_config
from helpers.runs import SMALL, assert_same_end, final_state, losses, spread

pytestmark = pytest.mark.gpu

FROZEN = SMALL + """
model['backbone'].update(freeze_vit=True, drop_path_rate=0.0)
if {cached}:
    feature_cache = dict(dir='{folder}/cache', views=3, seed=5)
else:
    sweep = dict(lr=[1e-3, 2e-3])
"""


@pytest.fixture
def config(tmp_path):
    def config(cached: bool) -> Path:
        return write_config(
            tmp_path / 'config.py', draw_data(tmp_path, train=5, val=2), 'head_tuning_tiny',
            FROZEN.replace('{cached}', str(cached)).replace('{folder}', str(tmp_path)))
    return config


def test_a_head_of_a_sweep_is_what_it_is_alone(train, config, tmp_path):
    """The same kernels on the same numbers: equal bit for bit, with deterministic ones."""
    train(config(cached=False), '--work-dir', tmp_path / 'sweep', '--seed', 5, '--deterministic',
          *spread(1))
    head, = tmp_path.glob('sweep/*lr0.002*/')
    train(head / 'config.py', '--work-dir', tmp_path / 'alone', '--seed', 5, '--deterministic',
          *spread(1))
    found, expected = final_state(head), final_state(tmp_path / 'alone')
    for name, value in expected.items():
        assert not isinstance(value, torch.Tensor) or torch.equal(found[name], value), name
    # A sweep averages the values of two batches as numbers, a run alone as tensors.
    logged, alone = losses(head), losses(tmp_path / 'alone')
    assert logged.keys() == alone.keys()
    for entry in (*logged.values(), *alone.values()):
        assert entry.pop('mode') == 'train'
    assert all(logged[i] == pytest.approx(alone[i], rel=1e-6) for i in alone)


LINEAR = """
model['decode_head'] = dict(
    _delete_=True, type='FCNHead', with_norm=True, num_convs=0, concat_input=False, in_index=-1,
    dropout_ratio=0.1, in_channels=32, channels=32, num_classes=150,
    loss_decode=dict(type='CrossEntropyLoss'))
model['auxiliary_head'] = None
model['backbone'].update(freeze_vit=True, drop_path_rate=0.0, with_fpn=False, out_indices=[3])
optimizer_config = dict(grad_clip=None)
sweep = dict(lr=[1e-3, 3e-3, 1e30], batched={batched})
"""


def test_heads_that_are_trained_together_end_where_they_end_alone(train, tmp_path, exact_float32):
    """Up to rounding; the losses of both are read late, and one head diverges."""
    data = draw_data(tmp_path, train=5, val=2)
    for batched in (True, False):
        config = write_config(tmp_path / f'{batched}.py', data, 'head_tuning_tiny',
                              SMALL + LINEAR.format(batched=batched))
        text = train(config, '--work-dir', tmp_path / str(batched), '--seed', 5,
                     '--deterministic', *spread(1))
        assert ('3 of 3 head(s) are trained together' in text) == batched
    for name in ('lr0.001', 'lr0.003'):
        together, alone = (losses(tmp_path / folder / name) for folder in ('True', 'False'))
        assert together.keys() == alone.keys()
        assert all(together[i]['loss'] == pytest.approx(alone[i]['loss'], rel=1e-5) for i in alone)
    stopped = [json.loads((tmp_path / folder / 'lr1e+30/result.json').read_text())
               for folder in ('True', 'False')]
    assert stopped[0]['state'] == 'diverged' and stopped[0]['reason'] == stopped[1]['reason']
    assert 'in iteration 2' in stopped[0]['reason']


def test_a_cache_is_filled_and_read(train, config, run_tool, tmp_path):
    config = config(cached=True)
    options = [config, '--deterministic', *spread(1)]
    text = train(*options, '--work-dir', tmp_path / 'whole', '--seed', 5)
    assert 'are still to be written' in text
    shutil.copytree(tmp_path / 'whole', tmp_path / 'again', symlinks=True)
    for path in [*tmp_path.glob('again/iter_[68].*'), *tmp_path.glob('again/best*')]:
        path.unlink()
    text = train(*options, '--work-dir', tmp_path / 'again', '--auto-resume')
    assert 'resumed after iteration 4' in text and 'of which 0 B are still' in text
    assert_same_end(tmp_path / 'again', tmp_path / 'whole')
    # In the passes that are views of the cache, nothing differs but rounding to 16 bits.
    train(*options, '--work-dir', tmp_path / 'plain', '--seed', 5, '--no-validate',
          '--cfg-options', 'feature_cache=None')
    cached, plain = ([entry['loss'] for entry in losses(tmp_path / name).values()][:3]
                     for name in ('whole', 'plain'))
    assert cached == pytest.approx(plain, rel=5e-3)
    code, out, _ = run_tool('cache.py', 'verify', tmp_path / 'cache')
    assert code == 0 and ' 0 corrupt' in out
