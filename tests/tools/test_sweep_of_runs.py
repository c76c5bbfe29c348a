"""Sweeps of partly trained backbones: each run is what tools/train.py makes of it, bit for bit."""
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from helpers.data import draw_data, write_config
from helpers.runs import SMALL, assert_same_end, spread, wait_for

from mmseg_custom.feature_cache import manage

# Two of the four blocks are frozen; drop path and dropout are drawn in the others.
CACHED = SMALL.replace('freeze_vit=False', 'freeze_vit=False, train_last=2') + """
feature_cache = dict(dir='{folder}/cache', views=3, seed=5)
sweep = dict(lr=[1e30, 1e-3])
"""
SEVERAL = ['--cfg-options', 'sweep.lr=[1e-3,2e-3]', 'sweep.train_last=[1,2]']
NAMES = ['last1_lr0.001', 'last1_lr0.002', 'last2_lr0.001', 'last2_lr0.002']


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('runs')
    return write_config(folder / 'config.py', draw_data(folder, train=5, val=2),
                        'head_tuning_tiny', CACHED.format(folder=folder))


@pytest.fixture(scope='module')
def whole(zygote, config, tmp_path_factory):
    """Uninterrupted sweeps of four runs by their number of ranks, each made once."""
    folder, done = tmp_path_factory.mktemp('whole'), {}

    def get(ranks: int) -> Path:
        if ranks not in done:
            done[ranks] = folder / f'sweep{ranks}'
            zygote.train(config, '--work-dir', done[ranks], '--seed', 5, *spread(ranks), *SEVERAL,
                         ranks=ranks)
        return done[ranks]
    return get


def test_a_run_that_diverges_is_reported_and_the_next_one_trained(zygote, config, tmp_path):
    text = zygote.train(config, '--work-dir', tmp_path / 'run', '--seed', 5, *spread(1),
                        '--cfg-options', 'runner.max_iters=4', 'data.workers_per_gpu=0')
    found = json.loads((tmp_path / 'run' / 'sweep.json').read_text())
    diverged, good = found['heads']
    reason = 'the loss is nan in iteration 2, at a learning rate of 7.5e+29'
    assert (diverged['name'], diverged['state'], diverged['reason']) == (
        'lr1e+30', 'diverged', reason)
    assert (good['name'], good['state'], good['iterations']) == ('lr0.001', 'finished', 4)
    assert found['best'] == 'lr0.001' and found['spread']['heads'] == 1
    assert good['mIoU'] == json.loads(
        (tmp_path / 'run/lr0.001/evaluations.json').read_text())['4']['mIoU']
    assert 'runs that train blocks share no feature maps: 2 run(s)' in text
    assert text.count('of which 0 B are still to be written') == 1  # the second finds the cache
    page = (tmp_path / 'run' / 'README.md').read_text()
    assert '**Finished**' in page and f'diverged: {reason}' in page and '## Runs' in page
    assert f'{tmp_path}/run/lr0.001/config.py' in page
    own, = (tmp_path / 'run' / 'lr0.001').glob('*[0-9].log')
    kept, = (tmp_path / 'run').glob('*[0-9].log')
    assert 'Iter [4/4]' in own.read_text() and 'Iter [' not in kept.read_text()
    assert 'lr1e+30 is stopped, the sweep goes on' in kept.read_text()


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [1, 2])
def test_a_run_is_what_it_is_alone(zygote, whole, config, tmp_path, ranks):
    assert [head['name'] for head in json.loads(
        (whole(ranks) / 'sweep.json').read_text())['heads']] == NAMES
    assert len(manage.caches_in(str(config.parent / 'cache'))) == 2
    for name in NAMES[1:3]:
        zygote.train(whole(ranks) / name / 'config.py', '--work-dir', tmp_path / name, '--seed', 5,
                     *spread(ranks), ranks=ranks)
        assert_same_end(tmp_path / name, whole(ranks) / name)
        ours, theirs = ({path.name for path in folder.iterdir() if not path.name.startswith('2')}
                        for folder in (tmp_path / name, whole(ranks) / name))
        assert theirs - ours == {'result.json', 'evaluations.json'} and not ours - theirs


@pytest.mark.slow
@pytest.mark.parametrize('ranks, number', [(1, signal.SIGKILL), (2, signal.SIGTERM)])
def test_interrupted_within_a_run_and_resumed(zygote, config, whole, tmp_path, ranks, number):
    """The runs before are not trained again, that one goes on, and the others follow."""
    work_dir = tmp_path / 'run'
    arguments = [config, '--work-dir', work_dir, '--auto-resume', *spread(ranks), *SEVERAL]
    processes = zygote.start_training(tmp_path / 'first.txt', *arguments, '--seed', 5, ranks=ranks)
    wait_for(work_dir / NAMES[1] / 'iter_2.pth')
    os.killpg(processes[-1], number)
    codes = [zygote.wait(process) for process in processes]
    assert codes == [75 if number == signal.SIGTERM else -number] * ranks, (
        tmp_path / 'first.txt').read_text()[-3000:]
    assert not (work_dir / NAMES[1] / 'result.json').exists()
    text = zygote.train(*arguments, ranks=ranks)
    assert 'seed: 5' in text and 'run 1 of 3: last1_lr0.002' in text
    for name in NAMES:
        assert_same_end(work_dir / name, whole(ranks) / name, killed=number == signal.SIGKILL)
    page = (work_dir / 'README.md').read_text()
    assert '32 of 32 iterations' in page
    text = zygote.train(*arguments, ranks=ranks)
    assert 'is finished, all 4 run(s)' in text


@pytest.mark.slow
def test_overwritten(zygote, config, whole, tmp_path):
    """Runs of an earlier sweep go once the first of the new one has made an iteration."""
    shutil.copytree(whole(1), tmp_path / 'run', symlinks=True)
    arguments = [config, '--work-dir', tmp_path / 'run', *spread(1), *SEVERAL]
    assert 'checkpoint(s) of an earlier run' in zygote.train(*arguments, code=1)
    text = zygote.train(*arguments, '--seed', 5, '--overwrite', '--cfg-options',
                        'runner.max_iters=4')
    assert text.count('--overwrite: removed') == 1
    results = json.loads((tmp_path / 'run' / 'sweep.json').read_text())
    assert [head['iterations'] for head in results['heads']] == [4] * 4
    assert not list((tmp_path / 'run').glob('*/iter_8.pth'))
