"""Training on a feature cache with the commands that people use; a cache that is killed."""
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from helpers.data import draw_data, write_config
from helpers.runs import SMALL, assert_same_end, losses, spread

from mmseg_custom.feature_cache import FeatureCache, manage

FROZEN = SMALL + """
model['backbone'].update(freeze_vit=True, drop_path_rate=0.0)
feature_cache = dict(dir='{folder}/cache', views=3, seed=5)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    """Head tuning of a pyramid and UPerNet on five images and three views of each."""
    folder = tmp_path_factory.mktemp('cached')
    return write_config(folder / 'config.py', draw_data(folder, train=5, val=2),
                        'head_tuning_tiny', FROZEN.format(folder=folder))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob('view*')}


def verified(folder: Path) -> int:
    """The shards of the only cache in a folder, all of which are right."""
    (name, _), = manage.caches_in(str(folder))
    cache = FeatureCache.open(str(folder), name)
    assert manage.verify(cache) == {}
    return len(cache.present())


@pytest.mark.slow
def test_resumed_and_on_two_ranks(zygote, config, tmp_path):
    whole, again = tmp_path / 'whole', tmp_path / 'again'
    first = zygote.train(config, '--work-dir', whole, '--seed', 5,
                         *spread(1))
    assert 'of which 108 kB are still to be written' in first and verified(
        config.parent / 'cache') == 3
    # Killed after iteration 4: it is resumed on what is in the cache, in the same order.
    shutil.copytree(whole, again, symlinks=True)
    for path in [*again.glob('iter_[68]*'), *again.glob('best*')]:
        path.unlink()
    text = zygote.train(config, '--work-dir', again, '--auto-resume',
                        *spread(1))
    assert 'resumed after iteration 4' in text and 'of which 0 B are still' in text
    assert_same_end(again, whole)
    # Two ranks fill a cache of their own with the same bytes.
    other = tmp_path / 'cache'
    zygote.train(config, '--work-dir', tmp_path / 'two', '--seed', 5,
                 '--cfg-options', f'feature_cache.dir={other}', *spread(2), ranks=2)
    assert contents(other) == contents(config.parent / 'cache')
    # These passes are no more than the views, and the seeds are the same: nothing differs.
    zygote.train(config, '--work-dir', tmp_path / 'plain', '--seed', 5,
                 '--no-validate', '--cfg-options', 'feature_cache=None', *spread(1))
    expected = [entry['loss'] for entry in losses(tmp_path / 'plain').values()]
    assert [entry['loss'] for entry in losses(whole).values()][:3] == pytest.approx(
        expected[:3], rel=2e-3)


def test_another_cache_is_another_run(zygote, config, tmp_path):
    arguments = ['--work-dir', tmp_path / 'run', '--seed', 5, '--auto-resume', *spread(1),
                 '--cfg-options', 'runner.max_iters=2', f'feature_cache.dir={tmp_path}/cache']
    zygote.train(config, *arguments)
    text = zygote.train(config, *arguments, 'feature_cache.views=2', code=1)
    assert 'feature_cache.views was 3 and is 2 here' in text


@pytest.mark.slow
def test_killed_while_it_is_filled_by_two_jobs(zygote, tmp_path):
    folder = tmp_path / 'cache'
    config = write_config(
        tmp_path / 'config.py', draw_data(tmp_path, train=130, val=1), 'linear_probing_tiny',
        f"runner = dict(max_iters=1)\nfeature_cache = dict(dir='{folder}', views=6)")

    def start(name: str) -> int:
        return zygote.start_training(tmp_path / f'{name}.txt', config, '--work-dir',
                                     tmp_path / name, '--no-validate', '--seed', 0)[0]
    for name in ('a', 'b'):  # each is killed after it has written a shard or more
        process, before = start(name), len(list(folder.rglob('view*.safetensors')))
        end = time.monotonic() + 90
        while len(list(folder.rglob('view*.safetensors'))) <= before:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        assert zygote.wait(process) == -signal.SIGKILL
        assert verified(folder) < 18
    processes = [start('c'), start('d')]  # at once
    assert [zygote.wait(process) for process in processes] == [0, 0]
    assert verified(folder) == 18
    written = [(tmp_path / f'{name}.txt').read_text().count('still to be written') for name in 'cd']
    assert written == [1, 1]


@pytest.mark.slow
def test_commands(zygote, config):
    folder = config.parent / 'cache'
    zygote.run('tools/cache.py', 'build', config, '--seed', 5, '--cfg-options',
        'feature_cache.views=1')
    (name, _), = manage.caches_in(str(folder))
    assert f'{name}  5 images x ' in zygote.run('tools/cache.py', 'list', folder)
    assert ' 0 corrupt' in zygote.run('tools/cache.py', 'verify', folder, name[:6])
    path = next(folder.rglob('view*.safetensors'))
    path.write_bytes(path.read_bytes()[:-1] + b'\xff')
    text = zygote.run('tools/cache.py', 'verify', folder, code=1)
    assert f'corrupt: {path} (the checksum of record ' in text and 'error: 1 corrupt files' in text
    assert f'removed: {name}' in zygote.run('tools/cache.py', 'prune', folder, name)
    assert 'no cache in' in zygote.run('tools/cache.py', 'list', folder)
